"""The JSON documents of a run, the names of its files, and the options that were given; no torch."""
