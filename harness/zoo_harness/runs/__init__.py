"""Prepare, execute, resume, score, compare and rank runs."""
