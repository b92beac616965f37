"""How messages travel: the port, MQTT (paho's one home), its twin in memory, reconnection, topic filters, probes.

May import storelink.contract and storelink.host.
"""
