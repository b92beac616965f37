"""Following HQ: each stream's way from messages to committed rows.

May import storenode.replica.writer, storenode.core, storenode.errors and storelink.
"""
