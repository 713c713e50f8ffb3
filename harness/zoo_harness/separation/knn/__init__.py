"""Find exact nearest neighbours. The page docs/exact-neighbours.md proves that the search loses no neighbour."""
