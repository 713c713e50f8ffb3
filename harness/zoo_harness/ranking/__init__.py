"""Scores that rank backbones before training, and tests of their differences."""
