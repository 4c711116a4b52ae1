"""Settings of a run, a comparison, an engine and a model, as pydantic classes.

It imports no model library, so reading and refusing settings is fast.
Not here: the code that acts on settings (`rlzoo.model`, `rlzoo.tasks`, `rlzoo.engine`, `rlzoo.training`).
"""
