"""The command ``timetrial metatrain``: meta-trains weights of the VeLO architecture, in pieces.

Boundary: configuration, files, progress and records; the arithmetic is in
``optimizers.metatraining``.
"""
