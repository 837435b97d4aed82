"""Removes what killed processes left: locks, half checkpoints, drafts of files.

Boundary: files that nobody owns any more; records and whole checkpoints stay.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Final

from timetrial.bench.claims import LOCK, TakenError, claimed
from timetrial.bench.resuming import checkpoint_root
from timetrial.framework.checkpoint import is_whole
from timetrial.tracking.record.journal import DIRECTORIES
from timetrial.tracking.record.tracker import remove_drafts

_DRAFT: Final = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
"""Names of ``framework.files.write_atomically``."""


def sweep(root: Path) -> None:
    """Tidies the directories of runs below a tracking root whose process was killed."""
    for lock in sorted(checkpoint_root(root).glob(f"*/*/{LOCK}")):
        with contextlib.suppress(TakenError, OSError), claimed(lock.parent, lock.parent.name):
            for path in lock.parent.iterdir():
                if path.name.isdecimal() and not is_whole(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif _DRAFT.fullmatch(path.name):
                    path.unlink(missing_ok=True)
    remove_drafts(root.absolute() / DIRECTORIES[0])
