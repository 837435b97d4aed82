"""Runs on several machines or devices: a queue in a database, workers, and who starts them."""
