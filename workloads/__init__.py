"""Workloads: the fixed training problems. Imports framework only."""
