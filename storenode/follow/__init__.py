"""Following HQ: each stream's way from messages to committed rows; storenode/node.py gives it its turns.

May import storenode.replica, core, config, errors, and storelink; not outbox or clock, its neighbours.
"""
