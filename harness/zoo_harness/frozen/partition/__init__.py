"""Divide a network into a prefix, which is frozen, and a suffix, which trains."""
