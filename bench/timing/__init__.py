"""Time budgets on this machine: calibration, and estimates of steps per budget."""
