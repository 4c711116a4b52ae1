"""The small base model that ships with the package: how it is trained from scratch, and its model card."""
