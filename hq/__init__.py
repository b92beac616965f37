"""The command side: one master at headquarters, and what publishes it."""
