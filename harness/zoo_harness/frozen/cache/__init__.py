"""Keep the outputs of the frozen part."""
