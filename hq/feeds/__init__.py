"""Feeds: reading the files that other systems write, and planning what an import of one changes.

May import hq.core, hq.master, hq.errors and storelink.
"""
