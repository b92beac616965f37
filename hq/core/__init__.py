"""HQ's decisions. Pure: no IO, no clock, no threads.

May import hq.errors and storelink.contract.
"""
