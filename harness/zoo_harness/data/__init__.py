"""Decode the images of a dataset to uint8 arrays, choose subsets of them, and form batches."""
