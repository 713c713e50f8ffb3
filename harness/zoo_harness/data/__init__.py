"""A data set as uint8 arrays: decoding, subsets, batches."""
