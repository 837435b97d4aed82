"""Launchers by name: who starts the workers of a race or a study, and where.

Boundary: settings in, a launcher out; engines are imported only when they start workers.

A launcher decides where and how often workers are started. Which runs are finished, and who makes
the next one, is said by the queue: so every launcher, and every restart, gives the same race.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from timetrial.bench.launch.local import Local, LocalSettings
from timetrial.bench.launch.ray import Ray, RaySettings
from timetrial.bench.launch.slurm import Slurm, SlurmSettings
from timetrial.framework.config import ConfigError
from timetrial.framework.convert import convert
from timetrial.framework.entries import Entry
from timetrial.framework.errors import UserError
from timetrial.framework.overrides import split_off
from timetrial.framework.registry import Registry
from timetrial.framework.suggestions import unknown


class Launcher(Protocol):
    """Starts workers and waits for them.

    Attributes:
        leaves_machine: True if workers run on other machines; store and queue are then checked.
        workers: number of workers; 0 for as many as there is room for.
    """

    leaves_machine: bool
    workers: int

    def launch(self, command: Sequence[str], logs: Path | None) -> None:
        """Runs ``timetrial COMMAND`` in every worker until all have ended; restarts dead ones.

        Args:
            command: the command and its words.
            logs: directory for what the workers print; None prints it here.

        Raises:
            UserError: every worker ended with bad input, or the engine cannot be used.
            Interrupted: a signal came; it was passed on, and the workers have ended.
        """


class LauncherEntry(Entry[Launcher]):
    """One launcher: summary, settings and factory."""


LAUNCHERS: Registry[LauncherEntry] = Registry(
    "launcher",
    LauncherEntry,
    {
        "local": LauncherEntry("processes on this machine", LocalSettings, Local),
        "ray": LauncherEntry("actors on a Ray cluster", RaySettings, Ray),
        "slurm": LauncherEntry("a job array of Slurm", SlurmSettings, Slurm),
    },
)
"""All launchers by name, those of installed packages included (``timetrial.launchers``)."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A launcher with its settings.

    Attributes:
        name: its name.
        settings: its settings.
        launcher: the launcher.
    """

    name: str
    settings: Any
    launcher: Launcher

    @property
    def is_default(self) -> bool:
        """True for one worker on this machine: this process itself."""
        return self.name == "local" and self.settings == LocalSettings()

    def worker_words(self) -> list[str]:
        """Settings of the launcher that its workers take: ``worker.KEY=VALUE``."""
        taken = {"pool": "", "gpus": 0}
        found = {key: getattr(self.settings, key, none) for key, none in taken.items()}
        return [f"worker.{key}={value}" for key, value in found.items() if value != taken[key]]


def with_workers(chosen: Chosen, workers: int) -> Chosen:
    """The local launcher with a number of workers.

    Raises:
        UserError: another launcher is chosen, or another number.
    """
    if chosen.name != "local" or chosen.settings.workers not in (1, workers):
        raise UserError(f"--workers {workers}: expected it without other launcher settings")
    settings = dataclasses.replace(chosen.settings, workers=workers)
    return Chosen("local", settings, Local(settings))


def split(words: Sequence[str]) -> tuple[Chosen, list[str]]:
    """The launcher of ``launcher=NAME launcher.KEY=VALUE``, and the other words.

    Raises:
        ConfigError: the name or a key is unknown, or a value is out of range.
        PluginError: a launcher of another package cannot be used.
    """
    tree, rest = split_off(words, "launcher")
    name = convert(tree.pop("name", "local"), str, "launcher")
    if name not in LAUNCHERS:
        raise ConfigError(unknown("launcher", name, list(LAUNCHERS)))
    entry = LAUNCHERS[name]
    settings = convert(tree, entry.settings, "launcher")
    try:
        launcher = entry.make(settings)
    except UserError:
        raise
    except ValueError as error:
        raise ConfigError(f"launcher={name}: {error}") from error
    return Chosen(name, settings, launcher), rest
