"""What both programs need of the machine: SQLite files, locks, processes, wake-ups and logs.

May import storelink.contract.
"""
