"""The JSON documents of a run, the names of a run's files, and the declared options; this package imports no torch."""
