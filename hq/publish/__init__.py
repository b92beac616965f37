"""What goes out: live batches, segments and heads of each stream, and the check of what the broker keeps.

May import hq.core, hq.master.store, hq.errors and storelink.
"""
