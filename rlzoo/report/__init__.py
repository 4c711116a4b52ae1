"""Output for people: the page of a comparison with charts and tables, the picture of learning curves, live progress.

Pages and pictures are made from run folders alone, at any moment, offline. What lives here reads records and draws.
Not here: statistics and verdicts (`rlzoo.stats`), experiments, and what the commands print below their tables
(`rlzoo.cli`). Training needs nothing of this package.
"""
