"""Jobs: what the store does by the clock and in the background of the writer, and the files that the jobs keep.

May import storenode.follow, outbox, clock, replica, core, config, errors, and storelink.
"""
