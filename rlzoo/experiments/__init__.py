"""Many runs with one question: compare, ablate, tune, evaluate. Configurations in, numbers and verdicts out.

How results look, and when a report is written, is the business of `rlzoo.report` and `rlzoo.api`.
"""
