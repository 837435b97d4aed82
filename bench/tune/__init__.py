"""``timetrial tune``: HPO studies; their trials are ordinary recorded runs.

Boundary: the only importer of optuna; a trial is made by ``bench.experiment.run`` like any run.
"""
