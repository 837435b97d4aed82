"""Benchmarks: loop, optimizers, scoring, report, data, training steps, GPUs (make bench-*, gpu)."""
