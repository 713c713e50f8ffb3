"""The part of a network that does not train: where it ends, and its cached outputs."""
