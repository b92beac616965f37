"""How it travels: the one home of paho, behind a small port, and its twin in memory for simulation."""
