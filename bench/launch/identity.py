"""Who a worker is: its host and process, as text in a queue.

Boundary: this process and the processes of this host.
"""

from __future__ import annotations

import json
import socket

from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_is_gone, process_tags


def this_worker() -> str:
    """The identity of this process."""
    process = {key: text for key, text in process_tags().items() if key != schema.STARTED_MS}
    return json.dumps({schema.HOST: socket.gethostname(), **process})


def this_host() -> str:
    """The beginning of the identity of every process of this host."""
    return json.dumps({schema.HOST: socket.gethostname()})[:-1]


def is_gone(worker: str) -> bool:
    """True when a worker ran on this host and is dead."""
    try:
        return process_is_gone(json.loads(worker))
    except (ValueError, TypeError, AttributeError):
        return False


def worker_text(worker: str) -> str:
    """A worker in words: its host and process."""
    try:
        facts = json.loads(worker)
        return f"{facts[schema.HOST]}, process {facts[schema.PID]}"
    except (ValueError, TypeError, KeyError):
        return worker
