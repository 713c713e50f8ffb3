"""The version of blockzoo, in a separate module so that importing the version does not import the whole package."""

__version__ = "0.1.0"
