"""Celo and Celo-Adam in the registry: settings, weights that are missing, sinv6's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celo_theta import theta

from timetrial.bench.listing import describe, listing
from timetrial.bench.suite import load_run
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.weights.catalogue import PUBLISHED
from timetrial.optimizers.weights.files import save
from timetrial.optimizers.weights.origins import PUBLISHED_ORIGINS

NAMES = {"celo": "celo", "celo_adam": "celo-adam"}
HORIZON = Horizon(200, 120)
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def fetched(name: str, seed: int = 0) -> Path:
    """Puts random weights where the published ones would be."""
    path = PUBLISHED[NAMES[name]].path
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, theta(name, seed))
    return path


@each
def test_without_weights_it_is_listed_and_says_how_to_get_them(name: str) -> None:
    entry = OPTIMIZERS[name]
    settings: Any = entry.settings()
    assert (settings.weights, settings.weights_sha256) == (NAMES[name], "")
    assert entry.unavailable() == (
        f"its weights are not on this machine: timetrial fetch {NAMES[name]}"
    )
    assert f"timetrial fetch {NAMES[name]}" in listing()
    assert "cannot run here" in describe(name)
    with pytest.raises(UserError, match=f"optimizer.weights: .*timetrial fetch {NAMES[name]}"):
        entry.build(settings, HORIZON)


@each
def test_fetched_weights_are_used_and_recorded(name: str) -> None:
    fetched(name)
    entry = OPTIMIZERS[name]
    settings: Any = entry.settings(prompt=0.75)
    assert entry.unavailable() == ""
    assert len(settings.weights_sha256) == 64
    assert entry.variant(settings) == "published"
    assert entry.notes(settings, HORIZON) == {
        "celo.weights": NAMES[name],
        "celo.weights_sha256": settings.weights_sha256,
        "celo.num_steps": "90",
        **PUBLISHED_ORIGINS[NAMES[name]].tags(),
    }
    built = entry.build(settings, HORIZON)
    assert built.takes == ("value",)
    assert int(built.tx.init({}).scheduler.num_steps) == 90
    fetched(name, seed=1)
    assert entry.settings().weights_sha256 != settings.weights_sha256
    with pytest.raises(ValueError, match="weights_sha256: expected"):
        entry.build(settings, HORIZON)
    with pytest.raises(ValueError, match="weights_sha256: expected"):
        entry.settings(weights_sha256=settings.weights_sha256)


@each
def test_damaged_weights_are_no_missing_ones(name: str) -> None:
    path = fetched(name)
    path.write_bytes(path.read_bytes()[:-1])
    entry = OPTIMIZERS[name]
    assert "fetch" in entry.unavailable()
    assert "end too early" in entry.unavailable()
    with pytest.raises(UserError, match="end too early"):
        entry.build(entry.settings(), HORIZON)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """AlgoPerf's submission sinv6 is such a file: the arrays of Celo-Adam, other numbers."""
    save(tmp_path / "theta.state", theta("celo_adam", 5, hidden_size=64))
    assert (tmp_path / "theta.state").stat().st_size == 147_803
    words = ["preset=quick/flights_dlrm", "optimizer=celo_adam"]
    config = load_run([*words, f"optimizer.weights={tmp_path}/theta.state"])
    entry, settings = OPTIMIZERS["celo_adam"], config.optimizer.settings
    assert entry.variant(settings) == "theta"
    assert "theta.state, which do not come" in entry.notes(settings, HORIZON)["weights"]
    entry.build(settings, HORIZON)
    with pytest.raises(UserError, match="this is a Celo-Adam file; expected a Celo file"):
        load_run([words[0], "optimizer=celo", f"optimizer.weights={tmp_path}/theta.state"])
    with pytest.raises(UserError, match="no such file"):
        load_run([*words, f"optimizer.weights={tmp_path}/other.state"])


@each
def test_it_is_built_for_a_known_number_of_steps(name: str) -> None:
    fetched(name)
    entry = OPTIMIZERS[name]
    with pytest.raises(UserError, match=r"expected budget\.steps"):
        entry.build(entry.settings(), Horizon(200, None))
    assert int(entry.build(entry.settings(), Horizon(200, 1)).tx.init({}).scheduler.num_steps) == 1
    for wrong in ({"prompt": 0.0}, {"weight_decay": -1.0}, {"weights": ""}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
            entry.settings(**wrong)
