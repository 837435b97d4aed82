"""The record of a run: its journal, names and environment."""
