"""What a full-size workload lacks on this machine: the extra ``[data]``, or its prepared data.

Boundary: looks for packages and files, and imports none; lists of workloads import this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from timetrial.framework.errors import UserError
from timetrial.workloads.data.libraries import require_libraries
from timetrial.workloads.data.prepared import data_directory, is_prepared


def missing(workload: str, data_sets: Sequence[str]) -> str:
    """What a workload lacks, in one line; "" if nothing.

    Args:
        workload: its name.
        data_sets: directories of its data sets below ``data_directory()``.
    """
    try:
        require_libraries(f"workload {workload}")
        root = data_directory()
        lacking = [name for name in data_sets if not is_prepared(name, root)]
    except UserError as error:
        return str(error)
    if not lacking:
        return ""
    command = f"timetrial data prepare {workload} --source DIR"
    return f"its data are not prepared in {root}; {command}"
