"""Kills and signals at every moment of every command; nothing may be lost, doubled or left over.

Boundary: tests only. ``processes`` starts commands, ``hook`` strikes at a named call, ``races`` and
``signals`` say which commands and moments, ``facts`` reads what they left, ``__main__`` counts
(``make soak``).
"""
