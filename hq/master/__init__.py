"""The Command DB: every stream's rows and its event log in one SQLite file, and what keeps that file.

May import hq.core, hq.errors and storelink.
"""
