"""Feeds: reading the files that other systems write.

May import hq.core, hq.master, hq.errors and storelink.
"""
