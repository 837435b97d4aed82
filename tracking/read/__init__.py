"""Readers of recorded runs: journals, MLflow, AlgoPerf's logs, tables of times."""
