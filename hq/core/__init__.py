"""HQ's decisions. Pure: no IO, no clock, no threads."""
