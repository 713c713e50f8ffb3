"""Fetch, verify and publish checkpoints."""
