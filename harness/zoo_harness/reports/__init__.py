"""Cards, tables, plots, wording and published results."""
