"""Find exact nearest neighbours. docs/exact-neighbours.md describes the method and proves that no neighbour is lost."""
