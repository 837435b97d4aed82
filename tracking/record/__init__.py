"""The record of a run: its journal, the names in it, and the environment."""
