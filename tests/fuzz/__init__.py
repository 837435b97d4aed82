"""Feeds damaged files to every loader; ``make fuzz`` runs it, ``fuzz.test_fuzz`` runs a part.

Boundary: tests only. ``loaders`` lists what is read, ``mutate`` damages it, ``child`` reads it in a
process with limits, ``__main__`` counts. A new loader is one entry in ``loaders.LOADERS``.
"""
