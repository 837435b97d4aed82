"""Adapters: optimizers of other libraries as optax transformations.

Boundary: never imports these libraries.
"""
