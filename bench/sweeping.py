"""Removes what killed processes left: locks, half checkpoints, temporary files.

Boundary: files that nobody owns any more; records and whole checkpoints stay.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from timetrial.bench.claims import LOCK, TakenError, claimed
from timetrial.bench.resuming import checkpoint_root
from timetrial.framework.checkpoint import is_whole
from timetrial.framework.files import remove_drafts
from timetrial.tracking.record.journal import DIRECTORIES


def sweep(root: Path) -> None:
    """Tidies a tracking root: nothing of a living process is touched.

    Args:
        root: directory of journals, checkpoints and reports.
    """
    checkpoints = checkpoint_root(root)
    for lock in sorted(checkpoints.glob(f"*/*/{LOCK}")):
        with contextlib.suppress(TakenError, OSError), claimed(lock.parent, lock.parent.name):
            for path in lock.parent.iterdir():
                if path.name.isdecimal() and not is_whole(path):
                    shutil.rmtree(path, ignore_errors=True)
    for directory in (root / DIRECTORIES[0], checkpoints, root / "reports"):
        remove_drafts(directory)
