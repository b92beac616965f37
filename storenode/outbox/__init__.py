"""Upstream: the outbox of store software, the store's own prices, and the status that HQ sees.

May import storenode.replica.writer, storenode.core, storenode.errors and storelink.
"""
