"""Runs of a tiny model for these tests."""

from tests.runs import *  # noqa: F403  pytest finds fixtures by name
