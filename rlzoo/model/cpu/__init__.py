"""What only makes small models fast on a CPU. Only `rlzoo.model` may import it; without it all numbers are the same."""
