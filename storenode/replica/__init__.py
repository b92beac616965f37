"""The replica: one SQLite file, its one writer, and all that is read from it.

May import storenode.core, storenode.errors and storelink.
"""
