"""A command of ``timetrial``, and the arguments and checks that several commands share.

Boundary: checks input; opens no store and writes no file.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.framework.errors import UserError
from timetrial.framework.paths import PathError, user_path

if TYPE_CHECKING:
    from timetrial.bench.suite import Suite
    from timetrial.framework.config import Tracking

Options = argparse.Namespace
Parser = argparse.ArgumentParser
Job = Callable[[], int]
"""The work of a command; returns its exit code."""

CONTINUES = "the same command continues"


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: one line for ``timetrial --help``; "" hides the command.
        prepare: imports modules, checks the input and returns the job.
        text: description for ``--help``.
        examples: shown below the arguments.
        arguments: adds the command's own arguments to its parser.
        overrides: whether the command takes ``key=value`` words.
        interrupted: addition to the message after an interruption, or "".
    """

    summary: str
    prepare: Callable[[Options], Job]
    text: str
    examples: str = ""
    arguments: Callable[[Parser], None] = lambda parser: None
    overrides: bool = True
    interrupted: str = ""


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Returns an argparse type: a whole number from ``low`` to ``high``."""
    allowed = f"{low} to {high}" if high is not None else f"a whole number >= {low}"

    def number(text: str) -> int:
        value = int(text) if text.lstrip("+-").isdecimal() else None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected {allowed}, got {text}")
        return value

    return number


def number_above(low: float) -> Callable[[str], float]:
    """Returns an argparse type: a finite number above ``low``."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a finite number > {low:g}, got {text}")
        return value

    return number


def ip_address(text: str) -> str:
    """Argparse type of an IPv4 address, or ``localhost``."""
    try:
        return text if text == "localhost" else str(ipaddress.IPv4Address(text))
    except ValueError as error:
        message = f"expected an IPv4 address such as 127.0.0.1, got {text}"
        raise argparse.ArgumentTypeError(message) from error


def user_file(text: str) -> Path:
    """Argparse type of a file or directory, with ``~`` expanded."""
    try:
        return user_path(text)
    except PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def sha256_digest(text: str) -> str:
    """Argparse type of a sha256 in 64 hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"expected 64 hexadecimal digits, got {text:.80}")
    return text.lower()


def export_argument(parser: Parser, text: str) -> None:
    """Adds ``--export FILE``."""
    parser.add_argument("--export", type=user_file, metavar="FILE", help=text)


def busy_argument(parser: Parser) -> None:
    """Adds ``--busy-machine``."""
    text = "race time budgets beside other processes; repeat no runs with suspect seconds"
    parser.add_argument("--busy-machine", action="store_true", help=text)


def suspect_argument(parser: Parser) -> None:
    """Adds ``--include-suspect``."""
    text = "score runs whose seconds are suspect, too"
    parser.add_argument("--include-suspect", action="store_true", help=text)


def plan_arguments(parser: Parser, text: str) -> None:
    """Adds ``--plan`` and ``--price``; ``text`` explains the first."""
    parser.add_argument("--plan", action="store_true", help=text)
    parser.add_argument(
        "--price",
        type=number_above(0.0),
        metavar="P",
        help="with --plan: money per GPU-hour, or per machine-hour on CPUs",
    )


def check_price(options: Options) -> None:
    """Checks that ``--price`` stands beside ``--plan``.

    Raises:
        UserError: it stands alone.
    """
    if options.price is not None and not options.plan:
        raise UserError("--price: expected it with --plan, which shows the costs")


def check_export(path: Path | None) -> None:
    """Checks the file of ``--export``.

    Raises:
        UserError: its directory does not exist.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"--export: expected a file in an existing directory, got {path}")


def load_checked_suite(overrides: Sequence[str]) -> tuple[Suite, Tracking]:
    """Reads a suite with the presets and calibrations of its runs.

    Raises:
        UserError: any of them is missing or wrong.
    """
    from timetrial.bench.suite import load_suite, pacemaker, plan
    from timetrial.framework.config import calibrated_seconds

    suite, tracking = load_suite(overrides)
    for workload in suite.workloads:
        file = suite.calibration(workload)
        pace = pacemaker(suite, tracking, workload)
        seconds = None
        if file is not None:
            seconds = calibrated_seconds(Path(file), pace.workload, f"calibration {file}")
        plan(suite, tracking, workload, seconds)
    return suite, tracking


def require_devices() -> None:
    """Checks that JAX finds devices.

    Raises:
        UserError: JAX finds no device of the kind in JAX_PLATFORMS.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        named = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={named}: JAX finds no such device on this machine "
            f"({str(error) or type(error).__name__}); expected cpu, or no JAX_PLATFORMS at all"
        ) from error


def show(text: object, end: str = "\n") -> int:
    """Prints; returns the exit code 0."""
    print(text, end=end)
    return 0
