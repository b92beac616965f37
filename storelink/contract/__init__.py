"""What HQ and a store say to each other. Pure: no IO, no clock, no threads.

Imports nothing of ours.
"""
