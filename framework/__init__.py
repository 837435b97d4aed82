"""The training framework: one loop, one clock, one budget.

Boundary: knows no concrete workload, optimizer or tracking store.
"""
