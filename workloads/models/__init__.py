"""Models of the workloads; parameter names and shapes are AlgoPerf's."""
