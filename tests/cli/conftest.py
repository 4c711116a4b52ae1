"""Backbones for the tests of models."""

from tests.backbones import *  # noqa: F403  pytest finds fixtures by name
