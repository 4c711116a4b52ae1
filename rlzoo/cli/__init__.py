"""The command line. `commands` has one file per group of commands: each parses, calls the Python API and prints.

The files beside it make tables and pages for the screen. No training and no statistics in here.
"""
