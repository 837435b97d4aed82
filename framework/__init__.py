"""The training framework: one loop, one clock, one budget.

Boundary: independent of any concrete workload, optimizer or tracking store.
"""
