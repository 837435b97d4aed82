"""The training framework: one loop, one clock, one budget. Knows no concrete workload or optimizer."""
