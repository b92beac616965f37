"""`storenode doctor`: checks everything that a store needs, and changes nothing.

May import every other room of storenode but api and commands, and storelink.
"""
