"""Adapters that bring optimizers of other libraries into optax's form."""
