"""The query side: a replica of HQ's catalog in every store, and the daemon that keeps it equal."""
