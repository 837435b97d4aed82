"""The command ``timetrial data``: prepare, verify and list the full-size data sets.

Boundary: prints; ``workloads.data`` knows the data sets.
"""
