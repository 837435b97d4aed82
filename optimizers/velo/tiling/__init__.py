"""Storage of a model's tensors as tiles of one shape; knows no optimizer."""
