"""A store's decisions. Pure: no IO, no clock, no threads.

May import storenode.errors and storelink.contract.
"""
