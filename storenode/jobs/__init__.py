"""Jobs: what the store does by the clock, beside the writer, and the files that they keep.

May import every other room but api, doctor and commands.
"""
