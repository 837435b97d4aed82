"""Targets that are given instead of established: the paper's, AlgoPerf's, or those of a file.

Boundary: reads small tables; establishing targets from runs is for ``tracking.scores.targets``.

Sources: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (Table 6); the targets of AlgoPerf's leaderboards, from
https://github.com/mlcommons/submissions_algorithms (scoring/workload_targets_v05.json), where
how they were set is told in Dahl et al., 2023, https://arxiv.org/abs/2306.07179.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Final

import pandas as pd

from timetrial.framework.errors import UserError
from timetrial.framework.types import Condition, Split
from timetrial.tracking.scores.targets import CONDITIONS, SPLITS

ALGOPERF_VALIDATION: Final = {
    "criteo1tb": 0.123735,
    "criteo1tb_embed_init": 0.129657,
    "criteo1tb_layernorm": 0.123757,
    "criteo1tb_resnet": 0.12415,
    "fastmri": 0.723653,
    "fastmri_layernorm": 0.723284,
    "fastmri_model_size": 0.723559,
    "fastmri_tanh": 0.71784,
    "finewebedu_lm": 22.2995,
    "imagenet_resnet": 0.77431,
    "imagenet_resnet_gelu": 0.76765,
    "imagenet_resnet_large_bn_init": 0.76526,
    "imagenet_resnet_silu": 0.75445,
    "imagenet_vit": 0.77309,
    "imagenet_vit_glu": 0.75738,
    "imagenet_vit_map": 0.77113,
    "imagenet_vit_post_ln": 0.75312,
    "librispeech_conformer": 0.085884,
    "librispeech_conformer_attention_temperature": 0.109977,
    "librispeech_conformer_gelu": 0.094114,
    "librispeech_conformer_layernorm": 0.09731,
    "librispeech_deepspeech": 0.119936,
    "librispeech_deepspeech_no_resnet": 0.131564,
    "librispeech_deepspeech_norm_and_spec_aug": 0.14342,
    "librispeech_deepspeech_tanh": 0.150883,
    "ogbg": 0.28098,
    "ogbg_gelu": 0.27771,
    "ogbg_model_size": 0.269446,
    "ogbg_silu": 0.282178,
    "wmt": 30.8491,
    "wmt_attention_temp": 29.3379,
    "wmt_glu_tanh": 29.5779,
    "wmt_post_ln": 30.0779,
}
"""AlgoPerf's validation targets, versions 0.5 and 0.6, by workload and variant."""


def paper_targets(condition: Condition, split: Split) -> pd.Series[float]:
    """The targets of the paper's Table 6.

    Args:
        condition: ``time`` or ``step``.
        split: ``train`` or ``validation``.

    Returns:
        Index workload (sorted), name ``target``.
    """
    with (resources.files("timetrial.tracking") / "paper" / "targets.csv").open() as file:
        return _chosen(pd.read_csv(file), condition, split, "the paper's Table 6")


def algoperf_targets() -> pd.Series[float]:
    """AlgoPerf's validation targets: index workload (sorted), name ``target``."""
    return pd.Series(ALGOPERF_VALIDATION, name="target").rename_axis("workload").sort_index()


def load_targets(
    path: Path, *, condition: Condition = Condition.TIME, split: Split = Split.VALIDATION
) -> pd.Series[float]:
    """Targets from a file.

    A CSV file has a column ``workload`` and either a column ``target`` (and ``condition`` and
    ``split`` where they differ by these) or columns ``train_target``, ``validation_target``,
    ``test_target``. A JSON file is AlgoPerf's (``workload_targets.json``), or maps workloads to
    numbers.

    Returns:
        Index workload (sorted), name ``target``.

    Raises:
        UserError: the file cannot be read, has other columns, or two targets for one workload.
    """
    try:
        if path.suffix == ".json":
            return _from_json(path, split)
        table = pd.read_csv(path)
    except OSError as error:
        raise UserError(f"targets {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # what pandas and json raise on other content
        raise UserError(f"targets {path}: no table of targets: {error}") from error
    return _chosen(table, condition, split, f"targets {path}")


def _from_json(path: Path, split: Split) -> pd.Series[float]:
    tree = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(tree, dict) and isinstance(tree.get("workloads"), dict):
        key = f"{split}_target_value"
        tree = {name: spec.get(key) for name, spec in tree["workloads"].items()}
    try:
        found = {str(name): float(value) for name, value in tree.items() if value is not None}
    except (AttributeError, TypeError) as error:
        raise ValueError("expected an object of workloads and numbers") from error
    return pd.Series(found, name="target", dtype=float).rename_axis("workload").sort_index()


def _chosen(
    table: pd.DataFrame, condition: Condition, split: Split, where: str
) -> pd.Series[float]:
    for name, value, allowed in (("condition", condition, CONDITIONS), ("split", split, SPLITS)):
        if value not in allowed:
            raise UserError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if name in table:
            table = table[table[name] == value]
    column = "target" if "target" in table else f"{split}_target"
    if "workload" not in table or column not in table:
        raise UserError(
            f"{where}: expected columns workload and target (or {split}_target), got "
            f"{', '.join(map(str, table.columns))}"
        )
    found = table.set_index("workload")[column]
    if not found.index.is_unique:
        twice = sorted(set(found.index[found.index.duplicated()]))
        raise UserError(f"{where}: expected one target per workload, got more for {twice}")
    try:
        return found.astype(float).rename("target").sort_index()
    except ValueError as error:
        raise UserError(f"{where}: expected numbers, got {error}") from error
