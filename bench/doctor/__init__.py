"""The doctor: what this machine is, whether it is fit for time budgets, and what is missing."""
