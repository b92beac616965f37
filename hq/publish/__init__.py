"""What goes out: live batches, segments and heads of each stream, and the check of what the broker keeps.

May import hq.master, hq.core, hq.errors and storelink; hq.collect and hq.feeds stand beside it.
"""
