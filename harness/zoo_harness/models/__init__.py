"""Build a network, load weights, replace its head, freeze it, read its layers."""
