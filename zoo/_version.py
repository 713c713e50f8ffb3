"""The version of blockzoo, in a module of its own so that no other module imports the whole package for it."""

__version__ = "0.1.0"
