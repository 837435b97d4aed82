"""Tracking: records runs, reads them back, scores and reports them. Imports framework only."""
