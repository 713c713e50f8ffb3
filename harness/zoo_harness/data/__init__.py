"""A dataset as uint8 arrays: decoding, subsets, batches."""
