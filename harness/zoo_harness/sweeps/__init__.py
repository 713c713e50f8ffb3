"""Sweeps: many runs by one plan, in this process, in local workers or on a Ray cluster."""
