"""A workload that trains in microseconds: that of the shipped contract tests."""

from timetrial.bench.contracts.regression import TRUE, Regression

TinyWorkload = Regression

__all__ = ["TRUE", "TinyWorkload"]
