"""Prepares the process of a worker: ignored signals, cores, its end with its parent.

Boundary: a script that ``child.start`` runs in the new process. It imports the standard library
only, and then becomes the command. So nothing runs between fork and exec in a process with threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Final

_END_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG of Linux's <sys/prctl.h>."""


def main() -> None:
    """Reads ``ignored``, ``cores`` and ``parent`` from the first argument; executes the others."""
    wanted = json.loads(sys.argv[1])
    for number in wanted["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    if wanted["cores"]:
        os.sched_setaffinity(0, wanted["cores"])
    if wanted["parent"] and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, int(signal.SIGKILL))
        if os.getppid() != wanted["parent"]:  # it has ended already
            sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
