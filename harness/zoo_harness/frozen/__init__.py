"""Find the frozen part of a network, which does not train, and cache the outputs of the frozen part."""
