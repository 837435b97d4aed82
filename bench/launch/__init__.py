"""Runs on several machines: a queue in a database, workers, who starts them, and pools."""
