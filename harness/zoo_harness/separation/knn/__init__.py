"""Find exact nearest neighbours; docs/exact-neighbours.md has the method and its proof."""
