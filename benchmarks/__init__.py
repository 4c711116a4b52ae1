"""Recipes, measurements and their results. Run from a checkout; never installed."""
