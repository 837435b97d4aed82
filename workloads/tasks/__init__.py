"""Tasks: loss and metrics of a kind of problem, whatever the data and the size of the model."""
