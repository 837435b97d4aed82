"""Tracking: MLflow in, run records out, scores and reports. Imports framework only."""
