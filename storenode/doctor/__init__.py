"""`storenode doctor`: looks at all that a store needs, and changes nothing.

May import every other room but api and commands.
"""
