"""Faster float32 attention and Llama-like layers for small models on a CPU, with gradients written by hand.

Not here: anything that changes a result; these layers equal transformers' up to rounding (`rlzoo.model.reference`).
Only `rlzoo.model` imports this package. Start with `llama`; `backbone.use_fast_path` says when it is used.
"""
