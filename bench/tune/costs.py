"""What a study costs: the command ``timetrial tune --plan``.

Boundary: prints; makes no trial and no storage.
"""

from __future__ import annotations

from pathlib import Path

from timetrial.bench import lengths
from timetrial.bench.costs import Planned, cost_lines
from timetrial.bench.launch.launchers import Chosen
from timetrial.bench.planning import crew_of, show_disk
from timetrial.bench.tune.settings import StudyPlan
from timetrial.framework.calibration import load_calibration


def show_costs(plan: StudyPlan, chosen: Chosen, price: float | None = None) -> int:
    """Prints number and costs of the trials of a study, as if none was made yet.

    Trials that end early, pruned or diverged, cost less.

    Args:
        plan: the study.
        chosen: launcher of its workers.
        price: money per GPU-hour, or per machine-hour on CPUs; None if unknown.
    """
    config = plan.config
    file = config.budget.calibration
    calibration = load_calibration(Path(file)) if file is not None else None
    store = lengths.readable_store(config.tracking)
    expected = lengths.expected(config, lengths.recorded(store), calibration)
    crew = crew_of(chosen, needs_gpu=False)
    print(
        f"study {plan.name}: {plan.trials} trials of {config.optimizer.name} on "
        f"{config.workload.name}, search {plan.settings.search}"
    )
    show_disk([config] * plan.trials, config.tracking, crew.workers)
    for line in cost_lines([Planned(expected)] * plan.trials, crew, price=price):
        print(line)
    return 0
