"""Optimizers: optax transformations by name, with their settings. Imports framework only."""
