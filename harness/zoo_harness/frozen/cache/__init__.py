"""Cache the outputs of the frozen part of a network, in memory and in files."""
