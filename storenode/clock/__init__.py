"""The store's clock, judged by HQ's messages.

May import storenode.replica.writer, storenode.core, storenode.errors and storelink.
"""
