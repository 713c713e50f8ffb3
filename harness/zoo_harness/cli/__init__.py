"""The command line ``zoo``: the Typer application, shared options, printed output, and a module for each command."""
