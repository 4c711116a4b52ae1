"""The command line: one file per group of commands. It parses, calls the Python API and prints."""
