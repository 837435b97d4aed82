"""Models of the workloads, with AlgoPerf's parameter names and shapes."""
