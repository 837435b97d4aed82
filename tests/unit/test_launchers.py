"""Launchers by name, those of installed packages included, and what their workers are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugins import package

from timetrial.bench.launch import launchers
from timetrial.bench.launch.driver import race_with
from timetrial.bench.launch.launchers import LAUNCHERS
from timetrial.bench.listing import describe, listing
from timetrial.bench.suite import load_suite
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import UserError
from timetrial.framework.registry import PluginError

SHOUT = '''
import dataclasses
from collections.abc import Sequence
from pathlib import Path

HEARD = []


@dataclasses.dataclass(frozen=True)
class Volume:
    """Settings.

    Attributes:
        volume: loudness.
    """

    volume: int = 1
    pool: str = ""

    def __post_init__(self) -> None:
        if self.volume > 9:
            raise ValueError(f"volume: expected at most 9, got {self.volume}")


class Shout:
    """Shouts the command across the room."""

    leaves_machine = False

    def __init__(self, settings: Volume) -> None:
        self.workers = settings.volume

    def launch(self, command: Sequence[str], logs: Path | None) -> None:
        HEARD.append((list(command), logs))
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[timetrial.launchers]\nshout = shout:Shout\nmute = shout:HEARD\n"
    package(tmp_path, "shouting", {"shout": SHOUT}, points)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LAUNCHERS, "_loaded", {})


def test_the_launcher_of_another_package_starts_the_workers(
    site: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = ["suite=quick", "seeds=[0]", "optimizers=[adam]", f"tracking.root={tmp_path / 'runs'}"]
    chosen, words = launchers.split([*given, "launcher=shout", "launcher.volume=3"])
    assert words == given
    assert not chosen.is_default
    suite, tracking = load_suite(words)
    with pytest.raises(UserError, match="holds no runs of suite quick"):  # it has only shouted
        race_with(chosen, suite, tracking, words)
    (told,) = __import__("shout").HEARD
    assert told == (["worker", *given, "--launched"], tmp_path / "runs/logs/timetrial-quick")
    shown = capsys.readouterr()
    assert "3 workers by launcher shout" in shown.out + shown.err


def test_its_settings_are_checked_and_told(site: None):
    with pytest.raises(ConfigError, match=r"launcher\.volume: expected at most 9, got 11"):
        launchers.split(["launcher=shout", "launcher.volume=11"])
    with pytest.raises(PluginError, match=r"launcher mute of shouting 0\.1 cannot be used"):
        launchers.split(["launcher=mute"])
    with pytest.raises(ConfigError, match="did you mean 'slurm'"):
        launchers.split(["launcher=slrm"])
    chosen, _ = launchers.split(["launcher=shout", "launcher.pool=a"])
    assert chosen.worker_words() == ["worker.pool=a"]


def test_launchers_are_listed_with_their_settings(site: None):
    assert "Shouts the command across the room." in describe("launchers")
    assert "shouting 0.1" in describe("shout")
    assert "loudness." in describe("shout")
    assert "time limit of a job" in describe("slurm")
    assert "a job array of Slurm" in listing()
