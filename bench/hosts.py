"""One run on several hosts: joining, comparing what was started, ending together.

Boundary: processes around ``experiment.run``; ``framework.hosts`` agrees on clock and end within
the run. The first host alone records, saves and shows the run.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

import timetrial
from timetrial.bench.experiment import origin_of, run
from timetrial.bench.progress import Display
from timetrial.bench.race import show_result
from timetrial.bench.resuming import run_directory, tidy
from timetrial.bench.syncing import opened
from timetrial.bench.workshop import Workshop, guessed_program
from timetrial.framework import config as configuration
from timetrial.framework.callbacks import Watch
from timetrial.framework.config import RunConfig
from timetrial.framework.errors import InterruptedAgain, UserError
from timetrial.framework.hosts import Hosts
from timetrial.framework.overrides import split_off
from timetrial.framework.signals import noted

PATIENCE_SECONDS = 300
"""Time for all hosts to start, in seconds."""

NOTE_AFTER_SECONDS = 10.0

CHECKPOINT_FACT = "the checkpoint (tracking.root must be one directory for all)"

_LOST = re.compile(
    r"gloo|nccl|connection (reset|refused|closed)|broken pipe|coordination service|heartbeat|"
    r"socket closed|distributed",
    re.IGNORECASE,
)


def split(words: Sequence[str]) -> tuple[Hosts, list[str]]:
    """The settings ``hosts.KEY=VALUE``, and the other words.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    tree, rest = split_off(words, "hosts")
    return configuration.convert(tree, Hosts, "hosts"), rest


def join(hosts: Hosts) -> None:
    """Connects this process with the others; comes before anything else asks JAX for devices.

    Raises:
        UserError: they cannot be reached.
    """
    # JAX's own handling of SIGTERM would swallow it, and the run would go on to its end.
    jax.config.update("jax_enable_preemption_service", False)
    address: str | None = None if hosts.coordinator == "auto" else hosts.coordinator
    if address and hosts.index > 0:
        _reach(address)
    waiting = threading.Timer(NOTE_AFTER_SECONDS, _note_waiting, [hosts])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            address,
            hosts.count if address else None,
            hosts.index if address else None,
            initialization_timeout=PATIENCE_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"hosts.coordinator={hosts.coordinator}: expected to reach the hosts of this run, "
            f"got {_line(error)}"
        ) from error
    finally:
        waiting.cancel()


def _reach(address: str) -> None:
    """Waits until the first host listens; JAX would end the process without a clear message.

    Raises:
        UserError: it does not within ``PATIENCE_SECONDS``.
    """
    host, _, port = address.rpartition(":")
    given_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > given_up:
                raise UserError(
                    f"hosts.coordinator={address}: expected the host with hosts.index=0 to listen "
                    f"there within {PATIENCE_SECONDS} s, got {_line(error)}"
                ) from error
        time.sleep(0.2)


def _note_waiting(hosts: Hosts) -> None:
    print(
        f"timetrial: waiting for all hosts at {hosts.coordinator}, at most {PATIENCE_SECONDS} s",
        file=sys.stderr,
        flush=True,
    )


def train_together(config: RunConfig, *, again: bool = False) -> int:
    """Makes one run on all hosts that joined; ``timetrial train hosts.coordinator=...``.

    It is saved as any run: after an interruption or the loss of a host, the same command on all
    hosts continues it. ``tracking.root`` is a directory that all of them see.

    Returns:
        The exit code of this host: 1 when another one is lost.

    Raises:
        UserError: the hosts were started with different settings or data.
        Interrupted: a host received a signal; raised on all of them after the same update.
    """
    try:
        return _train(config, again=again)
    except UserError:
        _leave_at_exit(2)
        raise
    except InterruptedAgain as stop:
        _leave_at_exit(128 + stop.number)
        raise
    except Exception as error:
        _leave_at_exit(1)
        if not _LOST.search(str(error)):
            raise
        print(
            f"timetrial: another host of this run is lost ({_line(error)}); started again on all "
            "hosts, the same command continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        return 1


def _train(config: RunConfig, *, again: bool) -> int:
    first = jax.process_index() == 0
    workshop = Workshop()
    guessed_program(config, workshop)
    directory = run_directory(config)
    if first and again:
        origin_of(config, directory, again=True)  # removes what is left of a run that is over
    compare(facts(config, workshop))
    compare({CHECKPOINT_FACT: str(origin_of(config, directory, again=False).step)})
    store = None
    if first:
        store = opened(config.tracking)
    with contextlib.ExitStack() as stack:
        stack.enter_context(noted())
        display = stack.enter_context(Display()) if first else None
        watch: Watch | None = None
        if display is not None:
            display.race(total=1, skipped=0)
            watch = display.run(config)
        result = run(config, store, workshop, watch=watch, directory=directory)
        if display is not None:
            display.done(result, workshop.workload(config.workload).metric)
    if store is not None:
        tidy(config, directory)
        show_result(result, store, config.tracking)
    return 0


def facts(config: RunConfig, workshop: Workshop) -> Mapping[str, str]:
    """What must be equal on all hosts, by name."""
    digest = configuration.digest(config)
    datasets = workshop.workload(config.workload).datasets()
    return {
        "the settings": digest,
        "train.* settings": str(config.train),
        "the data": json.dumps(dict(datasets), sort_keys=True),
        "the versions": f"timetrial {timetrial.__version__}, jax {jax.__version__}",
    }


def compare(mine: Mapping[str, str]) -> None:
    """Compares facts over all hosts; a difference is refused on each of them.

    Raises:
        UserError: names the fact and the first host that differs.
    """
    from jax.experimental import multihost_utils

    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in mine.values()]
    own = np.frombuffer(b"".join(digests), np.uint8).reshape(len(mine), 8)
    everybody = np.asarray(multihost_utils.process_allgather(own))
    for i, (name, text) in enumerate(mine.items()):
        different = np.flatnonzero((everybody[:, i] != everybody[0, i]).any(axis=1))
        if len(different):
            raise UserError(
                f"hosts: expected {name} to be the same on all hosts, got another on host "
                f"{different[0]} than on host 0; on this host, {jax.process_index()}: {text}"
            )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _leave_at_exit(code: int) -> None:
    """Ends the process without JAX's farewell, which would wait minutes for the other hosts."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)
