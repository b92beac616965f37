"""What stores send: outbox batches and statuses, each entry kept once, and what is derived from them.

May import hq.core, hq.master, hq.errors and storelink.
"""
