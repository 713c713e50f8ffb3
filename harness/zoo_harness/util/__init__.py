"""Helpers for files, locks, digests, sizes, durations, signals and progress; this package imports no torch."""
