"""Pure scoring: targets, times, profiles, scores and their uncertainty."""
