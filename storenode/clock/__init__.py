"""The store's clock, judged by the times of HQ's messages.

May import storenode.replica, core, config, errors, and storelink; not follow or outbox, its neighbours.
"""
