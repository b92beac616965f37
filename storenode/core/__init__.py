"""Pure decisions of a store: no IO, no clock, no threads."""
