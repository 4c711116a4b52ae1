"""The Python API, composed of experiments and report: what `rlzoo.compare` and its like do.

The command line calls it too. No command, no training and no drawing is written here, only who is given what.
"""
