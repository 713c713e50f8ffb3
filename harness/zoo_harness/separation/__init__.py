"""The Separation Index family of an (N, D) array."""
