"""Who samples, scores and updates: the protocol (data only) and the engines that implement it.

The training loop, the experiments and the report know `rlzoo.engine.protocol` and nothing else in here.
"""
