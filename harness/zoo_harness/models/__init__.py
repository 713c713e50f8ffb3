"""Build networks, load their weights, replace the head, freeze layers, and read layer outputs as features."""
