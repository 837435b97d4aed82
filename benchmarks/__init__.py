"""Benchmarks: the loop, the optimizers, scoring, the report, a GPU (make bench-*, make gpu)."""
