"""What both programs need of the machine: SQLite files, locks, processes, wake-ups, logs and settings.

May import storelink.contract.
"""
