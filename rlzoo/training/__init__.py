"""Training of one run: rollout, credit, updates, evaluation. Start reading at `loop`.

This package sends requests to an engine through its protocol and does not depend on which engine answers.
Not here: models, adapters, optimizers (the engine's), and comparisons of several runs (`rlzoo.experiments`).
"""
