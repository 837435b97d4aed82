"""AlgoPerf's workloads in each version of the benchmark: names, targets, step hints, runtimes.

Pure: data only.

Versions, by their leaderboards:

=======  ====================================  =============================  =====================
version  leaderboard                           base workloads                 reference machine
=======  ====================================  =============================  =====================
0.5      competition of 2024                   8, and 6 held-out variants     8 x V100 (16 GB)
0.6      March 2025                            8                              8 x V100 (16 GB)
2        scored since 2026                     9: ``finewebedu_lm`` is new    4 x A100 (40 GB)
=======  ====================================  =============================  =====================

The scorer's own file for the newest leaderboard still says version 0.6; it is called 2 here to tell
its nine workloads from the eight of the leaderboard of March 2025.

Sources: https://github.com/mlcommons/submissions_algorithms at 12c8e4ea (branch main, June 2026):
targets and step hints from scoring/workload_targets.json and workload_targets_v05.json. Runtimes,
and the step hints of version 0.5, from ``meta_data_0.json`` of the logs there
(previous_leaderboards/; for version 2, branch a100_scoring at 46e69f1b, logs/self_tuning/). How
the targets were set: Dahl et al., Benchmarking Neural Network Training Algorithms, 2023,
https://arxiv.org/abs/2306.07179.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BASE_V05: Final = (
    "criteo1tb",
    "fastmri",
    "imagenet_resnet",
    "imagenet_vit",
    "librispeech_conformer",
    "librispeech_deepspeech",
    "ogbg",
    "wmt",
)
"""The eight base workloads of versions 0.5 and 0.6."""

BASE_V2: Final = tuple(sorted((*BASE_V05, "finewebedu_lm")))
"""The nine base workloads of version 2."""

HELD_OUT_V05: Final = (
    "criteo1tb_embed_init",
    "fastmri_tanh",
    "imagenet_resnet_large_bn_init",
    "librispeech_conformer_layernorm",
    "ogbg_model_size",
    "wmt_glu_tanh",
)
"""The held-out variants that were drawn for version 0.5."""

ALGOPERF_VALIDATION: Final[Mapping[str, float]] = {
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
"""Validation targets by workload and variant; the same in all versions."""

STEP_HINTS_V05: Final[Mapping[str, int]] = {
    "criteo1tb": 10_666,
    "fastmri": 36_189,
    "imagenet_resnet": 186_666,
    "imagenet_vit": 186_666,
    "librispeech_conformer": 80_000,
    "librispeech_deepspeech": 48_000,
    "ogbg": 80_000,
    "wmt": 133_333,
}
"""Step hints of version 0.5 and of the code of 2023 that the VeLO paper started from."""

STEP_HINTS_V06: Final[Mapping[str, int]] = {
    "criteo1tb": 10_666,
    "fastmri": 18_094,
    "imagenet_resnet": 195_999,
    "imagenet_vit": 167_999,
    "librispeech_conformer": 76_000,
    "librispeech_deepspeech": 38_400,
    "ogbg": 52_000,
    "wmt": 120_000,
}
"""Step hints of version 0.6."""

STEP_HINTS_V2: Final[Mapping[str, int]] = {**STEP_HINTS_V06, "finewebedu_lm": 72_000}
"""Step hints of version 2: those of version 0.6, and one for the new workload."""

RUNTIMES_V05: Final[Mapping[str, float]] = {
    "criteo1tb": 7703,
    "fastmri": 8859,
    "imagenet_resnet": 63_008,
    "imagenet_vit": 77_520,
    "librispeech_conformer": 61_068,
    "librispeech_deepspeech": 55_506,
    "ogbg": 18_477,
    "wmt": 48_151,
}
"""Longest allowed runtimes of version 0.5 in seconds, for external tuning."""

RUNTIMES_V06: Final[Mapping[str, float]] = {
    "criteo1tb": 7703,
    "fastmri": 4430,
    "imagenet_resnet": 66_159,
    "imagenet_vit": 69_768,
    "librispeech_conformer": 58_015,
    "librispeech_deepspeech": 44_405,
    "ogbg": 12_011,
    "wmt": 43_336,
}
"""Longest allowed runtimes of version 0.6 in seconds, for external tuning."""

RUNTIMES_V2: Final[Mapping[str, float]] = {
    "criteo1tb": 8915,
    "fastmri": 2745,
    "finewebedu_lm": 31_967,
    "imagenet_resnet": 49_918,
    "imagenet_vit": 64_292,
    "librispeech_conformer": 43_680,
    "librispeech_deepspeech": 36_949,
    "ogbg": 11_303,
    "wmt": 16_114,
}
"""Longest allowed runtimes of version 2 in seconds on its new machine, for external tuning."""
