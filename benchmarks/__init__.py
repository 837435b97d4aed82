"""Benchmarks: cost of the loop and of the optimizers (make bench-overhead, make bench-velo)."""
