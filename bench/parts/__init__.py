"""The parts of a benchmark: each makes rows of figures and a table of them."""
