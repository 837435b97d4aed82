"""Installed plug-in packages for tests: modules and their metadata, as left by pip."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

STRANGERS = '''
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.types import Direction, Split
from timetrial.framework.workload import Workload


@dataclasses.dataclass(frozen=True)
class Required:
    """Settings without a default.

    Parameters
    ----------
    learning_rate : float
        How far an update goes.
    """

    learning_rate: float


def bare(settings: Required, horizon: Horizon) -> optax.GradientTransformation:
    """Plain gradient descent, without extra arguments."""
    return optax.GradientTransformation(*optax.sgd(settings.learning_rate))


@dataclasses.dataclass(frozen=True)
class Rate:
    learning_rate: float = 0.1


def by_function() -> OptimizerEntry:
    def make(settings: Rate, horizon: Horizon) -> optax.GradientTransformation:
        assert horizon.steps is not None
        return optax.sgd(optax.cosine_decay_schedule(settings.learning_rate, horizon.steps))

    def rates(settings: Rate, horizon: Horizon) -> Any:
        return lambda step: settings.learning_rate if step < 10 else 0.01  # for single steps only

    return OptimizerEntry("Cosine over all steps", Rate, make, needs_steps=True,
                          learning_rates=rates, color="#123456")


def averaged(opt_state: Any, params: Any) -> Any:
    return opt_state[1].ema


def average(settings: Rate, horizon: Horizon) -> optax.GradientTransformation:
    return optax.chain(optax.sgd(settings.learning_rate), optax.ema(0.9))


@dataclasses.dataclass(frozen=True)
class CloudSettings:
    points: int = 48


class Clouds(Workload):
    """Tells two clouds of points apart."""

    name = "clouds"
    metric = "error"
    direction = Direction.MINIMIZE
    step_hint = 40
    eval_every_steps = 10

    def __init__(self, settings: CloudSettings) -> None:
        rng = np.random.default_rng(3)
        self._y = (np.arange(settings.points) % 2).astype(np.float32)
        x = rng.normal(size=(settings.points, 2)) + 2 * self._y[:, None]
        self._x = x.astype(np.float32)

    def init(self, key: jax.Array) -> Any:
        return {"w": 0.1 * jax.random.normal(key, (2,)), "b": jnp.zeros(())}, {}

    def _losses(self, params: Any, batch: Any) -> Any:
        logits = batch["x"] @ params["w"] + params["b"]
        return optax.sigmoid_binary_cross_entropy(logits, batch["y"]), logits

    def loss(self, params: Any, model_state: Any, batch: Any, key: Any) -> Any:
        return jnp.mean(self._losses(params, batch)[0]), model_state

    def eval_step(self, params: Any, model_state: Any, batch: Any) -> Any:
        losses, logits = self._losses(params, batch)
        wrong = (logits > 0) != (batch["y"] > 0.5)
        count = jnp.float32(len(losses))
        return {"loss": (losses.sum(), count), "error": (wrong.sum(), count)}, {}

    def train_batch(self, seed: int, step: int) -> Any:
        rows = np.random.default_rng((seed, step)).integers(0, len(self._x), 8)
        return {"x": self._x[rows], "y": self._y[rows]}

    def eval_batches(self, split: Split) -> Sequence[Any]:
        part = list(Split).index(split)
        return [{"x": self._x[part::3], "y": self._y[part::3]}]

    def datasets(self) -> Mapping[str, str]:
        return {}
'''

BROKEN = {
    "broken_import": "import no_such_package_anywhere\n",
    "broken_exit": "raise SystemExit(3)\n",
    "broken_syntax": "def make(:\n",
    "broken_type": "ENTRY = 3\n\n\nclass Plain:\n    rate = 0.1\n",
}


PAGE = ROOT / "docs" / "race-your-optimizer.md"


def readme_code() -> tuple[str, str]:
    """The packaged optimizer of the docs and the lines of its pyproject.toml."""
    page = PAGE.read_text()
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "Lion" in b]
    (lines,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    return code, lines


def package(
    site: Path, name: str, modules: Mapping[str, str], entry_points: str, version: str = "0.1"
) -> None:
    """Lays a package into a directory as pip would."""
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))


def source(folder: Path) -> None:
    """A repository of the README's optimizer, as its author would write it."""
    code, lines = readme_code()
    (folder / "lion.py").write_text(code)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "timetrial-lion"\nversion = "0.1"\n'
        f'[tool.setuptools]\npy-modules = ["lion"]\n{lines}'
    )


def installed(site: Path) -> None:
    """The README's package, one of a stranger, and broken ones, side by side."""
    code, lines = readme_code()
    declared = lines.replace('[project.entry-points."timetrial.optimizers"]', "").replace('"', "")
    package(site, "timetrial-lion", {"lion": code}, f"[timetrial.optimizers]\n{declared}")
    package(
        site,
        "strangers",
        {"strangers": STRANGERS},
        """\
        [timetrial.optimizers]
        bare-sgd = strangers:bare
        by_function = strangers:by_function

        [timetrial.workloads]
        clouds = strangers:Clouds
        """,
        version="2.3",
    )
    package(
        site,
        "broken-things",
        BROKEN,
        """\
        [timetrial.optimizers]
        imports = broken_import:ENTRY
        exits = broken_exit:ENTRY
        syntax = broken_syntax:ENTRY
        number = broken_type:ENTRY
        plain = broken_type:Plain
        gone = broken_type:NOTHING
        adam = broken_type:ENTRY

        [timetrial.workloads]
        exits_too = broken_exit:ENTRY
        """,
    )
