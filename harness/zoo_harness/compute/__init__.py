"""Choose the device and precision, manage memory, and connect the processes of a run."""
