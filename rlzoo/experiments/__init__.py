"""Many runs with one question: compare, ablate, tune. What the results look like is the report's business."""
