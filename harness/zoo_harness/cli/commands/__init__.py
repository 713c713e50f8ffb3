"""The commands of ``zoo``: each module has the name of its command."""
