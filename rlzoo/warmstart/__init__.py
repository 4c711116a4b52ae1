"""Training from scratch of the small base model that ships with the package, and its model card.

Not here: its settings (`rlzoo.config.warmstart`), the tasks and their demonstrations (`rlzoo.tasks`), the model's files
(`rlzoo/assets/base`). Start with `train.warmstart`.
"""
