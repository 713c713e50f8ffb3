"""The built-in plugins, one module per family, found through the same entry-point group as all others."""
