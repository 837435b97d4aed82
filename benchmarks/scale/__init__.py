"""Dry scale: races of 10,000 runs on 500 workers, without training.

Boundary: simulated time and drawn durations; the graph, the queue and the record are the real ones.
"""
