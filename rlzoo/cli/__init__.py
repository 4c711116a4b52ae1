"""The command line. `commands` has one file per group of commands: each parses, calls the Python API and prints.

The other files make tables and pages for the screen. Not here: training and statistics.
"""
