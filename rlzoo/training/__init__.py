"""The story of one run: rollout, credit, updates, evaluation. Readable from top to bottom, beginning with `loop`.

It asks an engine for samples, scores and updates, and does not know which engine answers.
"""
