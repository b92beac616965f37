"""The commands of `hq`: each reads its words, asks `hq.catalog`, prints the outcome.

May import every room of hq and storelink; nothing but `hq.cli` imports the commands.
"""
