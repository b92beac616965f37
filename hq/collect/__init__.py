"""What comes in: outbox batches and statuses of stores, each entry once.

May import hq.core, hq.master, hq.errors and storelink.
"""
