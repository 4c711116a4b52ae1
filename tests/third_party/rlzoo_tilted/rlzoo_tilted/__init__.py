"""An algorithm and a task for rlzoo, found by it as soon as this package is installed."""
