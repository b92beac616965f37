"""How messages travel: the port, MQTT (the one home of paho), its twin in memory, reconnection and topic filters.

May import storelink.contract and storelink.host.
"""
