"""The commands ``timetrial doctor`` and the check before a suite with time budgets.

Boundary: collects facts and findings, and prints them; nothing is recorded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from timetrial.bench import suite as suites
from timetrial.bench.commands.command import load_checked_suite
from timetrial.bench.doctor import activity as machine
from timetrial.bench.doctor.findings import (
    GIB,
    Finding,
    Level,
    activity_finding,
    core_findings,
    gpu_findings,
    space_findings,
)
from timetrial.bench.doctor.steps import step_findings
from timetrial.bench.listing import missing_entries
from timetrial.bench.suite import Suite
from timetrial.bench.workshop import Workshop
from timetrial.framework.compiled_files import size_of
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.gpus import OTHER_PROCESSES, gpus_in_use, visible_gpus
from timetrial.framework.machine import usable_cores
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.velo.weights.catalogue import has_google_weights
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import device_tags, host_tags, version_tags


def doctor(suite: Suite, tracking: Tracking, *, steps: bool = True, as_json: bool = False) -> int:
    """Describes and judges this machine; the command ``timetrial doctor``.

    Args:
        suite: the suite to be fit for.
        tracking: its ``root`` is where runs are recorded.
        steps: time steps of the reference run, too.
        as_json: print one JSON object instead of lines.

    Returns:
        0 if the machine is fit for time budgets, else 1.
    """
    described = description(tracking)
    if not as_json:
        print("\n".join(f"{key:<9} {text}" for key, text in described.items()), end="\n\n")
    found = []
    for finding in findings(suite, tracking, steps=steps):
        found.append(finding)
        if not as_json:
            print(line(finding), flush=True)
    failed = [finding for finding in found if finding.level is Level.FAIL]
    if as_json:
        print(json.dumps(_tree(suite, described, found), indent=2))
    else:
        print(f"\n{'not ' if failed else ''}fit for time budgets now")
    return 1 if failed else 0


def require_idle() -> None:
    """Checks in a second that this machine is fit for time budgets.

    Raises:
        UserError: it is not; the text says what is busy and how to go on.
    """
    failed = [f for f in quick_findings() if f.level is Level.FAIL]
    if failed:
        why = "; ".join(f"{finding.text} ({finding.remedy})" for finding in failed)
        raise UserError(
            f"this machine is not fit for time budgets now: {why}. timetrial doctor says more; "
            "--busy-machine races all the same, and scores leave out runs with suspect seconds"
        )


def quick_findings() -> list[Finding]:
    """What takes a second: other processes, quota, governor, GPUs."""
    platform = jax.default_backend()
    gpus = {gpu.ordinal: gpu.numbers().get(OTHER_PROCESSES) for gpu in gpus_in_use()}
    cores = len(usable_cores())
    return [
        activity_finding(machine.observe(), platform),
        *core_findings(cores, machine.cpu_quota(), machine.governor()),
        *gpu_findings(platform, gpus),
    ]


def findings(suite: Suite, tracking: Tracking, *, steps: bool) -> Iterator[Finding]:
    """All findings, cheap ones first."""
    yield from quick_findings()
    disk = machine.disk_free(Path(tracking.root))
    yield from space_findings(machine.memory(), disk, tracking.root)
    yield from suite_findings(suite)
    yield from preset_findings()
    if steps:
        yield from step_findings(suite, tracking)


def suite_findings(asked: Suite) -> Iterator[Finding]:
    """What each suite lacks; opens the data sets of their workloads."""
    learned: set[str] = set()
    for name in dict.fromkeys([asked.name, *suites.suites()]):
        try:
            suite = asked if name == asked.name else load_checked_suite([f"suite={name}"])[0]
            for workload in suite.workloads:
                choice = suites.pacemaker(suite, Tracking(), workload).workload
                Workshop().workload(choice)
        except (UserError, OSError) as error:
            level = Level.FAIL if name == asked.name else Level.WARN
            yield Finding(level, name, f"this suite cannot run: {error}")
            continue
        known = [o for o in suite.optimizer_names() if o in OPTIMIZERS]
        learned |= {optimizer for optimizer in known if OPTIMIZERS[optimizer].learned}
        count = f"{len(suite.workloads)} workloads with their data, {len(known)} optimizers"
        yield Finding(Level.OK, name, f"this suite can run: {count}")
    if learned and not has_google_weights():
        text = f"{', '.join(sorted(learned))} use our embedded weights, not Google's"
        yield Finding(Level.WARN, "weights", text, "timetrial fetch velo")


def preset_findings() -> Iterator[Finding]:
    """Presets that cannot run here, one finding for all."""
    lacking = [name for name, path in suites.presets().items() if missing_entries(path)]
    if lacking:
        text = f"presets that cannot run: {', '.join(lacking)}"
        yield Finding(Level.WARN, "presets", text, "timetrial list says what each one lacks")


def description(tracking: Tracking) -> dict[str, str]:
    """What this machine is, one line each."""
    tags = {**host_tags(), **device_tags(), **version_tags()}
    names = ("python", "jax", "jaxlib", "flax", "optax", "numpy", "mlflow", "timetrial")
    quota, governor = machine.cpu_quota(), machine.governor()
    found = {
        "machine": f"{tags[schema.HOST]}, {tags[schema.PLATFORM]}",
        "cpu": f"{tags[schema.HOST_CPU]}, {len(usable_cores())} of {os.cpu_count()} cores usable, "
        f"quota {'none' if quota is None else f'{quota:g}'}, governor {governor or 'unknown'}",
        "devices": f"{tags[schema.DEVICE_COUNT]} x {tags[schema.DEVICE_KIND]} "
        f"({tags[schema.DEVICE_PLATFORM]})",
        "versions": ", ".join(f"{name} {tags[schema.VERSION_PREFIX + name]}" for name in names),
        "root": str(Path(tracking.root).absolute()),
        "compiled": compiled_text(jax.config.jax_compilation_cache_dir),  # type: ignore[attr-defined]
    }
    for gpu in visible_gpus():
        found[f"gpu {gpu.ordinal}"] = (
            f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB, driver {gpu.driver}"
        )
    return found


def compiled_text(directory: str | None) -> str:
    """Where JAX keeps compiled programs, and how many; "not kept" without a directory."""
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    if not directory or not enabled:
        return "not kept: every process compiles its programs"
    count, size = size_of(Path(directory))
    return f"{directory}, {count} programs, {size / 2**20:.1f} MiB"


def line(finding: Finding) -> str:
    """A finding as printed: level, topic and text; the remedy on a line of its own."""
    text = f"{finding.level:<4}  {finding.topic:<11} {finding.text}"
    return text + (f"\n{'':<18}-> {finding.remedy}" if finding.remedy else "")


def _tree(suite: Suite, described: dict[str, str], found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "fit": all(finding.level is not Level.FAIL for finding in found),
        "machine": described,
        "findings": [vars(finding) for finding in found],
    }
