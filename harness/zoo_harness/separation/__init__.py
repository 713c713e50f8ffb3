"""Compute the Separation Index and related scores of features in an (N, D) array, a file or a table."""
