"""Data sets and batches of the workloads."""
