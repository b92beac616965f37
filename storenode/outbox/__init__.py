"""The way from the store to HQ: the outbox of store software, the store's own prices, and the store's status.

May import storenode.replica, core, config, errors, and storelink; not follow or clock, its neighbours.
"""
