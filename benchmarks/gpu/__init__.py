"""Measures the full-size workloads on one GPU: ``make gpu``; ``make gpu-dry`` on any machine.

Boundary: synthetic batches and small fixtures; no data set, network or tracking.

``parts`` lists what is measured, ``run`` starts a process for each part, ``child`` is that process.
Everything here and in ``tests/gpu`` needs jax, flax, optax, numpy, msgpack and pytest only.
"""
