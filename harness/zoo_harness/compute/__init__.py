"""Device, precision, memory and processes."""
