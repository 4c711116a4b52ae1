"""Intervals over seeds, tests, verdicts and the sentences that say them. Numbers in, numbers and words out."""
