"""The command line: the application, its options and output, and one module per command."""
