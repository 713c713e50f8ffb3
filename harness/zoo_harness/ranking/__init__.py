"""Compute scores that rank backbones before training, and test whether the backbones differ significantly."""
