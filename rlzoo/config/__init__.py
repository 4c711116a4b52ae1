"""Settings of a run, a comparison, an engine and a model, as pydantic classes.

Imports no model library: reading and refusing settings is fast. What settings mean is done elsewhere.
"""
