"""The commands of `storenode`: each reads its words, asks the other rooms, prints the outcome.

May import every room of storenode and storelink.
"""
