"""Files, locks, digests, sizes, text, signals and the progress protocol; no torch."""
