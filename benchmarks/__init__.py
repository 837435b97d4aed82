"""Benchmarks of the loop, the optimizers, scoring and data: the targets ``make bench-...``."""
