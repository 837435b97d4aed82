"""Runs on several machines: pools of identical ones, and the admission of each node."""
