"""The commands of `hq`: each reads its words, asks the other rooms, prints the outcome.

May import every room of hq and storelink.
"""
