"""How messages travel: a small port, its MQTT implementation, and an in-memory twin for simulation."""
