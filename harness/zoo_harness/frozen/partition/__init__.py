"""Cut a network where training starts."""
