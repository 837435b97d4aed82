"""The command ``timetrial metatrain``: meta-trains weights of the VeLO architecture, in pieces.

Boundary: configuration, files, progress and records; ``timetrial.optimizers.metatraining`` does the
arithmetic.
"""
