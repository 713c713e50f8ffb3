"""The PNG plots of a run."""
