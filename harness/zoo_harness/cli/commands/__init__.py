"""One module per command, called as the command."""
