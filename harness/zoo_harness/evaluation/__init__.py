"""One pass over a split; scores of splits and layers; confusion."""
