"""Files, locks, digests, sizes, text, signals and the progress protocol; nothing of the domain, no torch."""
