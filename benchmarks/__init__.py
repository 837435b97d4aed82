"""Benchmarks: what the loop and the optimizers cost (make bench-overhead, make bench-velo)."""
