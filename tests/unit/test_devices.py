"""Several devices, microbatches and memory: the same losses as in one piece on one device."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from raw_files import needs_data
from small import SmallDlrm, SmallGnn, SmallResnet, small_workloads
from tiny import TinyWorkload

from timetrial.bench.suite import load_run
from timetrial.framework import callbacks as cb
from timetrial.framework import config, hosts, machine, memory
from timetrial.framework.accumulation import loss_and_gradients
from timetrial.framework.budget import Budget
from timetrial.framework.devices import Devices, of_run
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.memory import Memory
from timetrial.framework.parallel import Train
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.workload import Batch, Workload

TESTS = Path(__file__).parents[1]


def simulated(*arguments: str) -> Mapping[str, Any]:
    """Results of the program ``simulated.py``, which has eight devices."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "simulated.py"), *arguments],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def eight() -> Mapping[str, Any]:
    return simulated()


def compare_losses(by_devices: Mapping[str, list[float]]) -> None:
    one = by_devices["1"]
    assert len(set(one)) > 8, "losses of several models and updates"
    for count, losses in by_devices.items():
        np.testing.assert_allclose(losses, one, rtol=2e-6, err_msg=f"{count} devices")


def test_a_model_has_the_same_losses_on_eight_devices(eight: Mapping[str, Any]) -> None:
    one, many = (eight["unet"][count] for count in ("1", "8"))
    assert len(set(one)) == 3
    np.testing.assert_allclose(many, one, rtol=2e-6)


@pytest.mark.slow
def test_every_optimizer_has_the_same_losses_on_one_two_and_eight_devices() -> None:
    losses = simulated("all")
    assert set(losses) == {"adam", "nadamw", "velo"}
    for by_devices in losses.values():
        assert set(by_devices) == {"1", "2", "8"}
        compare_losses(by_devices)


@pytest.mark.slow
@needs_data
def test_the_full_size_workloads_have_the_same_losses_on_one_two_and_eight_devices() -> None:
    found = simulated("full")
    assert set(found) == {"imagenet_resnet", "fastmri", "ogbg", "criteo1tb"}
    for name, by_devices in found.items():
        assert set(by_devices) == {"1", "2", "8"}
        for losses in by_devices.values():
            np.testing.assert_allclose(losses, by_devices["1"], rtol=2e-6, err_msg=name)


def test_a_divided_table_trains_as_a_whole_one(eight: Mapping[str, Any]) -> None:
    one, many = eight["table"]["1"], eight["table"]["8"]
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=1e-6)
    assert max(one["whole"]) >= 2**20 > max(many["whole"]), "large arrays are divided"
    assert many["state"] < one["state"] / 4


def test_no_update_gathers_a_divided_table_or_its_state(eight: Mapping[str, Any]) -> None:
    """VeLO's tiles of the table lie where its rows lie: only rows of the batch are gathered."""
    gathered = eight["table"]["8"]["gathered"]
    assert gathered, "the ids of a batch are gathered"
    assert max(gathered) < 2**12


def test_a_checkpoint_of_divided_arrays_gives_them_back(eight: Mapping[str, Any]) -> None:
    assert eight["table"]["restored"]


def test_batches_that_cannot_be_divided_are_refused_with_both_rules(
    eight: Mapping[str, Any],
) -> None:
    parts, devices = eight["refusals"]
    assert "divisible by 8 device(s) x 4 microbatches, got dense: 16" in parts
    assert "divisible by 3 device(s), got dense: 16" in devices
    assert all("evaluation batch" in text and "train.devices" in text for text in (parts, devices))


def test_a_batch_without_equal_rows_is_refused_for_microbatches() -> None:
    uneven = {"nodes": jax.ShapeDtypeStruct((8, 9), float), "y": jax.ShapeDtypeStruct((4,), float)}
    Devices().check(uneven, "training batch")
    with pytest.raises(ConfigError, match=r"equally many rows.*nodes: 8, y: 4"):
        Devices().check(uneven, "training batch", parts=2)


@functools.cache
def gradients(name: str, parts: int) -> Any:
    workload = {w.name: w for w in small_workloads()}[name]
    return gradients_of(workload, parts, workload.train_batch(0, 0))


def gradients_of(workload: Workload, parts: int, batch: Batch) -> Any:
    params, model_state = quick(workload.init)(jax.random.key(0))
    found = quick(loss_and_gradients(workload, parts))
    (loss, model_state), grads = found(params, model_state, batch, jax.random.key(1))
    return {"loss": loss, "grads": grads}, model_state


def quick(function: Any) -> Any:
    """The function, compiled in a short time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("name", ["unet", "dlrm", "gnn"])
def test_microbatches_give_the_gradients_of_the_whole_batch(name: str) -> None:
    whole, parts = gradients(name, 1)[0], gradients(name, 4)[0]
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(whole))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * largest)


def test_weights_count_for_graphs_whose_labels_are_unequally_known() -> None:
    """The mean of the microbatches' means is another number."""
    workload = SmallGnn()
    batch = workload.train_batch(0, 0)
    params, _ = quick(workload.init)(jax.random.key(0))
    parts = [{name: x[i::4] for name, x in batch.items()} for i in range(4)]
    loss = quick(workload.loss)
    losses = [float(loss(params, {}, part, jax.random.key(1))[0]) for part in parts]
    weights = [float(workload.weight(part)) for part in parts]
    assert len(set(weights)) > 1
    expected = np.average(losses, weights=weights)
    assert float(gradients("gnn", 4)[0]["loss"]) == pytest.approx(expected, rel=1e-5)
    assert abs(np.mean(losses) - expected) > 1e-4
    assert float(SmallDlrm().weight(SmallDlrm().train_batch(0, 0))) == 16


def test_a_microbatch_without_any_weight_adds_nothing() -> None:
    workload = SmallGnn()
    batch = dict(workload.train_batch(0, 0))
    batch["weight"] = batch["weight"] * (np.arange(16) % 4 > 0)[:, None, None].astype(np.float32)
    found, _ = gradients_of(workload, 4, batch)
    expected, _ = gradients_of(workload, 1, batch)
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_batch_norm_sees_the_microbatch_as_the_documentation_says() -> None:
    """Each microbatch is normalised by its own mean and variance; its statistics pass on."""
    (whole, _), (parts, state) = gradients("resnet", 1), gradients("resnet", 4)
    largest = [abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (whole, parts)), strict=True)]
    assert max(largest) > 1e-3
    workload = SmallResnet()
    params, expected = quick(workload.init)(jax.random.key(0))
    batch, loss = workload.train_batch(0, 0), quick(workload.loss)
    losses = []
    for i in range(4):
        part = {name: x[i::4] for name, x in batch.items()}
        value, expected = loss(params, expected, part, jax.random.key(1))
        losses.append(float(value))
    assert float(parts["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), state, expected)


def test_a_run_in_microbatches_has_the_losses_of_one_without() -> None:
    def losses(parts: int) -> list[float]:
        program = Program(TinyWorkload(), optax.adam(0.01), microbatches=parts)
        result = Trainer(program, Budget(steps=9), []).fit(program.init(0))
        return [row.metrics["train/loss"] for row in result.evaluations]

    np.testing.assert_allclose(losses(2), losses(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"microbatches": 0}, "microbatches: expected a whole number >= 1, got 0"),
        ({"devices": 0}, "devices: expected a whole number >= 1, got 0"),
        ({"shard": "maybe"}, "expected one of auto, always, never, got 'maybe'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Train(**settings)


def test_more_devices_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.devices: expected at most \d+ on each host"):
        of_run(Train(devices=999), None)
    assert of_run(Train(), 1).count == 1


def test_large_arrays_are_divided_when_asked_or_when_they_do_not_fit() -> None:
    large = jax.ShapeDtypeStruct((2**18, 4), np.float32)
    small = jax.ShapeDtypeStruct((64, 4), np.float32)

    def places(shard: str, limit: int | None) -> list[bool]:
        devices = Devices(shard=shard)
        devices.count, devices.limit = 2, limit
        found = devices.shardings([large, small], [large])
        return [place is devices.rows for place in found]

    assert places("always", None) == [True, False]
    assert places("never", 1) == [False, False]
    assert places("auto", 9_000_000) == [False, False]
    assert places("auto", 8_000_000) == [True, False]
    assert places("auto", None) == [False, False]
    one = Devices(shard="always")
    assert one.shardings([large], [large]) == [one.whole]
    odd = Devices(shard="always")
    odd.count = 3
    assert not odd.divides(large)


def test_the_memory_of_a_run_is_known_before_its_first_update() -> None:
    program = Program(TinyWorkload(), optax.adam(0.01))
    state = program.init(0)
    program.compile(state, {"remaining_fraction": np.ones((), np.float32)})
    needed = program.memory
    assert needed is not None
    # Step 4, key 8, parameters 4 x 4 three times, Adam's count 4, one model state 4.
    assert needed.state == 4 + 8 + 3 * 16 + 4 + 4
    assert needed.temporaries > 0
    assert needed.limit is not None
    assert needed.limit > 2**20


def test_the_line_says_the_sum_in_units_of_people() -> None:
    line = str(Memory(10_900_000_000, 28_100_000_000, 80_000_000_000))
    assert line == "memory: state 10.9 GB + temporaries 28.1 GB = 39.0 GB of 80.0 GB"
    assert str(Memory(3_200_000, 0, None)) == "memory: state 3.2 MB + temporaries 0.0 MB = 3.2 MB"


@pytest.mark.parametrize(("limit", "shown"), [(10**9, 0), (2000, 1), (None, 0)])
def test_only_a_considerable_need_is_shown(limit: int | None, shown: int) -> None:
    lines: list[str] = []
    check = cb.CheckMemory(lambda: Memory(100, 20, limit), lines.append)
    check.on_fit_start(cb.StepInfo(0, 0.0, 0.0, 0))
    assert len(lines) == shown
    cb.CheckMemory(lambda: None, lines.append).on_fit_start(cb.StepInfo(0, 0.0, 0.0, 0))


def test_a_run_that_cannot_fit_makes_no_update() -> None:
    program = Program(TinyWorkload(), optax.adam(0.01))
    steps: list[int] = []
    state = program.init(0)
    program.devices.limit = 100
    watch = cb.Watch(lambda info: steps.append(info.step), lambda info, metrics: None)
    check = cb.CheckMemory(lambda: program.memory, lambda line: None)
    with pytest.raises(UserError, match=r"memory: state 0\.0 MB.*remedies: smaller batches"):
        Trainer(program, Budget(steps=3), [check, watch]).fit(state)
    assert not steps
    program.devices.limit = 50
    with pytest.raises(UserError, match="too much"):
        program.init(1)


def test_free_memory_is_that_of_the_machine_and_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.available_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert machine.available_bytes() == 5000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_bytes() == 5000 * 1024
    (tmp_path / "memory.max").write_text("1500\n")
    assert machine.available_bytes() == 500


def test_a_gpu_says_how_much_memory_it_has() -> None:
    @dataclasses.dataclass
    class Gpu:
        stats: Mapping[str, int] | None
        platform: str = "gpu"
        process_index: int = 0

        def memory_stats(self) -> Mapping[str, int] | None:
            return self.stats

    assert memory.limit_of([Gpu({"bytes_limit": 7})]) == 7
    assert memory.limit_of([Gpu(None)]) is None
    free = memory.limit_of(jax.devices()[:1]), machine.available_bytes()
    assert math.isclose(*(float(size or 0) for size in free), rel_tol=0.5)


@pytest.mark.parametrize("seconds", [0.0, 0.1234567, 59.999_999_6, 1e5 + 0.001, 3e6 + 0.000_001])
def test_the_clock_rides_through_the_update_without_losing_digits(seconds: float) -> None:
    rows = [hosts.signal_rows(value, 0, 2) for value in (seconds, seconds * 1.5 + 7)]
    agreed = hosts.read(jax.jit(hosts.combined)(np.concatenate(rows)))
    assert agreed.seconds == pytest.approx(seconds, abs=1e-6)
    assert agreed.ending == 0


def test_a_signal_on_any_host_is_seen_by_all() -> None:
    rows = [hosts.signal_rows(1.0, ending, 1) for ending in (0, 15, 0)]
    assert hosts.read(hosts.combined(np.concatenate(rows))).ending == 15


def test_a_host_alone_sends_no_signal() -> None:
    team = hosts.Team(Devices())
    assert team.alone
    assert team.inputs(3.0) == {}
    assert hosts.first_hosts(7) == 7


def test_where_a_run_is_computed_is_no_part_of_its_identity() -> None:
    def of(*words: str) -> config.RunConfig:
        return load_run(["workload=flights_dlrm", "optimizer=adam", *words])

    plain, elsewhere = of(), of("train.devices=1", "train.shard=always")
    assert config.digest(plain) == config.digest(elsewhere)
    parts = of("train.microbatches=4")
    assert config.digest(parts) != config.digest(plain)
    assert config.flat(parts)["train.microbatches"] == "4"
    assert config.flat(elsewhere)["train.shard"] == "always"
    assert not [key for key in config.flat(plain) if key.startswith("train")]
    assert "microbatches: 4" in config.to_yaml(parts)
