"""Every loader of Timetrial, with seeds made by its own writer.

Boundary: a loader writes seeds into a directory and reads a directory; imports inside functions, so
that a child loads only what it needs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Loader:
    """One kind of file and the code that reads it.

    Attributes:
        name: of the loader.
        write: writes valid files into an empty directory.
        load: reads the directory; returns what was read, comparable by ``same``.
        weight: relative number of inputs.
        damage: pattern of the files to damage.
        valid: whether the seeds can be read.
        sealed: whether the files have checksums, so that no change may be accepted.
        same: whether what was read holds no other number than the original.
    """

    name: str
    write: Callable[[Path], object]
    load: Callable[[Path], Any]
    weight: float = 1.0
    damage: str = "**/*"
    sealed: bool = False
    valid: bool = True
    same: Callable[[Any, Any], bool] = lambda expected, found: repr(expected) == repr(found)

    def targets(self, directory: Path) -> list[Path]:
        """The files to damage."""
        return sorted(path for path in directory.glob(self.damage) if path.is_file())

    def is_sealed(self, directory: Path) -> bool:
        """Whether a file still claims to be as written; without that line, edits are accepted."""
        return self.sealed and any(
            b"sha256" in path.read_bytes()[:100]
            or path.suffix in (".jsonl", ".params")
            or path.name == "SHA256SUMS"
            for path in self.targets(directory)
        )


# Journals


def _write_journal(directory: Path) -> None:
    from recorded import ROWS, identity

    from timetrial.framework.types import Status
    from timetrial.tracking.record.tracker import resume_run, start_run

    first = start_run(directory, identity())
    first.log(ROWS[:3])
    offset = first.offset
    first.log(ROWS[3:4])
    run = resume_run(first.path, offset, {"pid": "2"})
    run.log(ROWS[3:])
    run.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {"final/loss": 1.25})
    run.path.rename(directory / "run.jsonl")


def _write_old_journal(directory: Path) -> None:
    import re

    _write_journal(directory)
    path = directory / "run.jsonl"
    path.write_bytes(re.sub(rb', "crc32": "\w{8}"|"format": 2, ', b"", path.read_bytes()))


def _load_journal(directory: Path) -> Any:
    from timetrial.tracking.read.journals import from_journals
    from timetrial.tracking.record.journal import experiment_of, read_journal, rows_between

    path = directory / "run.jsonl"
    experiment_of(path)
    contents = read_journal(path)
    assert read_journal(path, evaluations_only=True).header == contents.header
    rows, end = rows_between(path, 0)
    assert end <= path.stat().st_size
    assert len(rows) == len(contents.rows)
    from_journals(directory)
    return contents


def _same_journal(expected: Any, found: Any) -> bool:
    """A kill cuts a journal after any line: what is left must be as written."""
    rows = list(found.rows)
    return (
        repr(rows) == repr(list(expected.rows)[: len(rows)])
        and found.header == expected.header
        and found.started_ms == expected.started_ms
        and found.end in (None, expected.end)
    )


# Configurations


def _write_calibration(directory: Path) -> None:
    from timetrial.bench.suite import load_run
    from timetrial.framework.calibration import Calibration, Reference, save_calibration
    from timetrial.framework.config import workload_texts

    config = load_run(["workload=flights_dlrm", "optimizer=adam"])
    texts = {"cpu": "x", "cores": "2"}
    found = Calibration(
        *("flights_dlrm", workload_texts(config.workload), "nadamw", 300, 20),
        *((0.011, 0.0125, 0.012), 0.012, 0.125, Reference("v100x8", 100.0, 0.01)),
        *(120.5, "2024-05-28", texts, {"jax": "0.4"}, 1.5),
    )
    save_calibration(found, directory / "c.yaml")


def _load_calibration(directory: Path) -> Any:
    from timetrial.bench.suite import load_run
    from timetrial.framework.calibration import load_calibration

    path = directory / "c.yaml"
    run = ["workload=flights_dlrm", "optimizer=adam"]
    return load_calibration(path), load_run([*run, f"budget.calibration={path}"]).budget.seconds


def _write_pool(directory: Path) -> None:
    from timetrial.bench.launch.pool import Pool, PoolCalibration, save_pool

    settings = {"workload.batch_size": "512", "workload.mlp_bottom_dims": "[32, 16, 8]"}
    calibration = PoolCalibration(settings, "heavy_ball", 0.0125, 0.01, "2024-05-28")
    versions = {"python": "3.12.4", "jax": "0.9.0", "jaxlib": "0.9.0"}
    machine = ("lab", "gpu", "GPU X", 1, "CPU X", 8, "550.1", versions)
    save_pool(Pool(*machine, {"flights_dlrm": calibration}), directory / "lab.yaml")


def _load_pool(directory: Path) -> Any:
    from timetrial.bench.launch.pool import load_pool

    return load_pool(str(directory / "lab.yaml"))


def _write_preset(directory: Path) -> None:
    from timetrial.bench.suite import load_run
    from timetrial.framework import checksums
    from timetrial.framework.config import to_yaml

    config = load_run(["workload=flights_dlrm", "optimizer=velo", "budget.steps=30", "label=x"])
    (directory / "p.yaml").write_bytes(checksums.seal("# a preset\n" + to_yaml(config)))


def _load_preset(directory: Path) -> Any:
    from timetrial.bench.suite import load_run

    return load_run([f"preset={directory / 'p.yaml'}", "tracking.root=runs"])


def _write_plain_preset(directory: Path) -> None:
    from timetrial.bench.suite import PRESETS_DIRECTORY

    source = PRESETS_DIRECTORY / "quick" / "flights_dlrm.yaml"
    (directory / "p.yaml").write_bytes(source.read_bytes() + b"\nlabel: ${oc.env:HOME}\n")


def _load_plain_preset(directory: Path) -> Any:
    from timetrial.bench.suite import load_run
    from timetrial.framework.config import digest, flat, to_yaml

    config = load_run([f"preset={directory / 'p.yaml'}", "optimizer=nadamw"])
    home = os.environ["HOME"]
    assert "HOME" in config.label or home not in config.label
    return flat(config), digest(config), to_yaml(config)


def _write_suite(directory: Path) -> None:
    from timetrial.bench.suite import SUITES_DIRECTORY

    for source in SUITES_DIRECTORY.glob("[mq]*"):
        (directory / source.name).write_bytes(source.read_bytes())


def _load_suite(directory: Path) -> Any:
    from timetrial.bench.suite import load_suite, pacemaker, plan

    found = []
    for name in ("quick", "mini"):
        suite, tracking = load_suite([f"suite={directory / name}.yaml"])
        for workload in suite.workloads:
            pacemaker(suite, tracking, workload)
            found.append(plan(suite, tracking, workload, 10.0))
    return found


STUDY = ["workload=flights_dlrm", "optimizer=adam"]


def _write_space(directory: Path) -> None:
    (directory / "s.yaml").write_text(
        "learning_rate: {low: 1e-4, high: 1e-1, scale: log}\n"
        "one_minus_b1: {low: 0.01, high: 0.5}\n"
        "workload.batch_size: {choices: [16, 32, 64]}\n"
        "workload.mlp_top_dims: {choices: [[16, 1], [8, 1]]}\n"
    )


def _load_space(directory: Path) -> Any:
    from timetrial.bench.tune.settings import load_plan

    return load_plan([*STUDY, f"study.space={directory / 's.yaml'}", "study.trials=4"])


def _write_points(directory: Path) -> None:
    points = [
        {"learning_rate": 10.0**-k, "one_minus_b1": 0.1, "workload.batch_size": 16 * k}
        for k in (1, 2, 3)
    ]
    (directory / "p.json").write_text(json.dumps(points))


def _load_points(directory: Path) -> Any:
    from timetrial.bench.tune.settings import load_plan

    return load_plan([*STUDY, f"study.points={directory / 'p.json'}"])


COMMANDS: Sequence[Sequence[str]] = (
    ("train", "workload=flights_dlrm", "optimizer=adam", "seed=1", "budget.steps=30", "label=a"),
    ("train", "preset=quick/assays_gnn", "optimizer=velo", "stop.target=0.5", "train.devices=1"),
    ("bench", "suite=quick", "seeds=0,1", "optimizers=[adam,nadam]", "conditions=step,time"),
    ("tune", *STUDY, "study.trials=8", "study.seed=3", "study.search=halton", "study.name=a"),
    ("tune", *STUDY, "study.storage=journal:/x/y", "study.heartbeat_seconds=3", "seed=99999999"),
    ("report", "suite=quick", "tracking.root=runs", "--r-max", "3.5", "--intervals", "bca"),
    ("list", "adam"),
    ("calibrate", "flights_dlrm", "tracking.root=x"),
    ("metatrain", "name=a", "minutes=1", "seed=3"),
    ("sync", "--file", "x.jsonl", "tracking.uri=sqlite:///x.db"),
    ("ui", "--port", "5000"),
    ("compare", "--from", "runs", "tracking.experiment=x"),
)


_SEEN: set[str] = set()  # words that were read once, so that all imports are made


def _write_words(directory: Path) -> None:
    for number, words in enumerate(COMMANDS):
        (directory / f"{number:02}").write_bytes("\n".join(words).encode())


def _load_words(directory: Path) -> Any:
    """Prepares commands; none is carried out."""
    from timetrial.bench import cli
    from timetrial.framework.errors import UserError

    refusal = None
    for path, undamaged in zip(sorted(directory.iterdir()), COMMANDS, strict=True):
        if path.read_bytes() == "\n".join(undamaged).encode() and _SEEN.issuperset(undamaged):
            continue  # nothing new
        _SEEN.update(undamaged)
        words = [os.fsdecode(word) for word in path.read_bytes().split(b"\n")]
        if not {"-h", "--help", "--version"}.isdisjoint(words) or "\0" in "".join(words):
            continue  # no process has a NUL among its arguments; help ends the process
        try:
            options = cli._parsed(words)
            if not str(getattr(options, "storage", "")).startswith("http"):
                options.command.prepare(options)
        except UserError as error:
            refusal = error
            str(error).encode()  # can be printed
    if refusal is not None:
        raise refusal
    return None


# Weights


def _write_weights(directory: Path) -> None:
    from velo_theta import theta_from_seed

    from timetrial.optimizers.velo import layout
    from timetrial.optimizers.velo.weights.formats import record_digest, save_weights

    theta = layout.nest(theta_from_seed(0, 4, 2))
    save_weights(directory / "sealed.params", theta, "gen", 3)
    record_digest(directory / "sealed.params")


def _write_bare_weights(directory: Path) -> None:
    _write_weights(directory)
    (directory / "sealed.params.sha256").unlink()


def _load_weights(directory: Path) -> Any:
    from timetrial.optimizers.velo import layout
    from timetrial.optimizers.velo.weights.formats import load_weights

    found = load_weights(directory / "sealed.params")
    leaves = layout.flatten(found.meta_params)
    return found.step, found.gen_id, {path: leaf.tobytes() for path, leaf in leaves.items()}


def _write_pylo(directory: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file
    from unit.test_velo_pylo import pylo_pair
    from velo_theta import theta_from_seed

    from timetrial.optimizers.velo import layout

    pair = pylo_pair(layout.nest(theta_from_seed(0, 4, 2)))
    for name, tensors in zip(("VeLO_RNN", "VeLO_MLP"), pair, strict=True):
        whole = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        save_file(whole, directory / f"{name}.safetensors")


def _load_pylo(directory: Path) -> Any:
    from timetrial.optimizers.velo.weights.formats import load_weights

    return load_weights(directory).hidden_size


def _celo_loaders(name: str) -> list[Loader]:
    """Loaders of weights other than VeLO's, with a digest beside the file and without."""

    def write(directory: Path) -> None:
        from celo_theta import theta

        from timetrial.optimizers.weights.files import save

        save(directory / "sealed.params", theta(name, 0, hidden_size=3))

    def write_sealed(directory: Path) -> None:
        from timetrial.optimizers.weights.files import record_digest

        write(directory)
        record_digest(directory / "sealed.params")

    def load(directory: Path) -> Any:
        from timetrial.optimizers import weights
        from timetrial.optimizers.weights.layouts import CELO, CELO2, CELO_ADAM

        layout = {"celo": CELO, "celo_adam": CELO_ADAM, "celo2": CELO2}[name]
        found = getattr(weights, f"load_{name}")(directory / "sealed.params")
        return {path: leaf.tobytes() for path, leaf in layout.flatten(found.meta_params).items()}

    return [
        Loader(f"{name} weights", write_sealed, load, 1, sealed=True),
        Loader(f"bare {name} weights", write, load, 1),
    ]


# Tables


def _write_targets(directory: Path) -> None:
    from timetrial.framework import checksums

    (directory / "targets.csv").write_bytes(
        checksums.seal(
            "workload,split,target\nfastmri,validation,0.7234\nogbg,validation,0.28098\n"
        )
    )


def _load_targets(directory: Path) -> Any:
    from timetrial.tracking.scores.fixed_targets import named_targets

    found = named_targets(str(directory / "targets.csv"))
    return {key: dict(series) for key, series in found.items()}


def _write_json_targets(directory: Path) -> None:
    tree = {
        "workloads": {
            "fastmri": {"validation_target_value": 0.7234, "test_target_value": 0.7415},
            "ogbg": {"validation_target_value": 0.28098},
        }
    }
    (directory / "targets.json").write_text(json.dumps(tree))


def _load_json_targets(directory: Path) -> Any:
    from timetrial.tracking.scores.fixed_targets import named_targets

    return named_targets(str(directory / "targets.json"))


def _write_times(directory: Path) -> None:
    from timetrial.framework import checksums

    rows = ["condition,split,workload,optimizer,seed,value"]
    for i, (workload, optimizer) in enumerate([("ogbg", "adam"), ("ogbg", "velo"), ("a", "adam")]):
        rows += [f"time,validation,{workload},{optimizer},{s},{10.5 * i + s}" for s in range(3)]
        rows += [f"step,train,{workload},{optimizer},{s},{100 * i + s}" for s in range(3)]
    (directory / "times.csv").write_bytes(checksums.seal("\n".join(rows) + "\n"))


def _load_times(directory: Path) -> Any:
    from timetrial.tracking.read.times_csv import records_from_times

    found = records_from_times(directory / "times.csv")
    return [(r.workload, r.optimizer, r.seed, r.evaluations) for r in found.records]


def _write_wide_times(directory: Path) -> None:
    text = "submission,fastmri,ogbg,score\nadam,10.5,20,0.3\nvelo,,31.5,0.2\nnadam,inf,22,0.1\n"
    (directory / "times.csv").write_text(text)


def _write_algoperf(directory: Path) -> None:
    head = "accumulated_submission_time,global_step,score,train/ssim,validation/ssim\n"
    for trial in (1, 2):
        path = directory / "nadamw" / "study_0" / "fastmri_jax" / f"trial_{trial}"
        path.mkdir(parents=True)
        rows = "".join(f"{10 * k},{k * trial},{10 * k},0.5,{0.7 + k / 100}\n" for k in range(5))
        (path / "eval_measurements.csv").write_text(head + rows)
        meta = {"workload.max_allowed_runtime_sec": 8859, "gpu_model_name": "V100", "gpu_count": 8}
        (path / "meta_data_0.json").write_text(json.dumps(meta))


def _load_algoperf(directory: Path) -> Any:
    from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
    from timetrial.tracking.scores.algoperf import study_times
    from timetrial.tracking.scores.algoperf_rules import Rules

    source = read_algoperf_logs(directory)
    study_times(source.records, {"fastmri": 0.723653}, Rules())
    return source


def _write_evaluations(directory: Path) -> None:
    from recorded import ROWS

    from timetrial.tracking.record.evaluations_file import encode, evaluations_in

    (directory / "evaluations.json").write_text(encode(evaluations_in(ROWS)))


def _load_evaluations(directory: Path) -> Any:
    from timetrial.framework.errors import UserError
    from timetrial.tracking.record.evaluations_file import decode

    try:
        return decode((directory / "evaluations.json").read_text())
    except ValueError as error:  # the readers of a store take the histories then
        raise UserError(str(error)) from error


# Stores


def _study(directory: Path, storage: str) -> Any:
    from timetrial.bench.tune import ledger, study, summary
    from timetrial.bench.tune.settings import load_plan
    from timetrial.bench.tune.storage import open_storage

    words = [*STUDY, "study.trials=3", f"study.storage={storage}", "study.name=s"]
    plan = load_plan([*words, f"tracking.root={directory}"])
    database = open_storage(plan.storage, 60)
    with database.lock():
        found = ledger.open_study(plan, database)
        ledger.settle(found, database, plan, retry_errors=True)
        claimed = ledger.claim(found, database, plan)
    if claimed is not None:
        ledger.suggested(claimed, plan)
    summary.closing(found, plan, database)
    summary.trials_csv(found, plan)
    summary.best_config(found, plan)
    study.ledger.by_point(found.trials)
    return None


def _journal_study(directory: Path) -> Any:
    return _study(directory, f"journal:{directory / 'study.log'}")


def _sqlite_study(directory: Path) -> Any:
    return _study(directory, f"sqlite:///{directory / 'study.db'}")


def _write_mlflow(directory: Path) -> None:
    from recorded import ROWS, Recording, identity

    from timetrial.tracking.store.opening import open_store

    store = open_store(f"sqlite:///{directory}/mlflow.db", root=directory)
    run = Recording(store, identity())
    run.log(ROWS)
    run.finish("FINISHED", {"stop_reason": "BUDGET"}, {"final/loss": 1.25})


def _load_mlflow(directory: Path) -> Any:
    from timetrial.tracking.read.mlflow import from_mlflow
    from timetrial.tracking.store.opening import open_store

    store = open_store(f"sqlite:///{directory}/mlflow.db", root=directory, create=False)
    return from_mlflow(store, "tests")


# Data sets


def _write_manifest(directory: Path) -> None:
    from timetrial.workloads.data.prepared import MANIFEST, Manifest, Shard, Skipped

    shards = [Shard(f"x-train.array_record-0000{i}-of-00002", 10, 1000, "ab" * 32) for i in (0, 1)]
    found = Manifest(
        "fastmri/1.0.0",
        {"train": shards, "validation": shards[:1], "test": shards[1:]},
        {"rows": {"train": 20}},
        [Skipped("day_0:3", "a rule")],
        False,
    )
    (directory / "fastmri" / "1.0.0").mkdir(parents=True)
    (directory / "fastmri" / "1.0.0" / MANIFEST).write_text(found.text())


def _load_manifest(directory: Path) -> Any:
    from timetrial.workloads.data.prepared import load_manifest, manifest_digest

    manifest = load_manifest("fastmri/1.0.0", directory)
    for split, shards in manifest.splits.items():
        manifest.examples(split)
        for shard in shards:
            path = directory / "fastmri" / "1.0.0" / shard.file
            assert path.parent == directory / "fastmri" / "1.0.0", shard.file
    manifest_digest("fastmri/1.0.0", directory)
    return manifest


def _write_embedded(directory: Path) -> None:
    import hashlib

    import numpy as np

    np.savez_compressed(directory / "x.npz", x=np.arange(60), y=np.ones((4, 5), np.float32))
    data = (directory / "x.npz").read_bytes()
    entry = {"file": "x.npz", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (directory / "manifest.json").write_text(json.dumps({"x": entry}))


def _load_embedded(directory: Path) -> Any:
    from timetrial.workloads.data import embedded_data

    embedded_data.load.cache_clear()
    embedded_data.manifest.cache_clear()
    found = embedded_data.load("x", directory)
    return {name: array.tobytes() for name, array in found.items()}


def _write_graphs(directory: Path) -> None:
    from timetrial.workloads.data import ogbg
    from timetrial.workloads.data.preparing import Workshop
    from timetrial.workloads.data.synthetic import molecule_tables, write_ogbg

    write_ogbg(directory / "raw", molecule_tables(30))
    ogbg.prepare(Workshop(directory, ogbg.NAME), directory / "raw", sample=True)


def _load_graphs(directory: Path) -> Any:
    from timetrial.framework.types import Split
    from timetrial.workloads.data.ogbg import load_graphs

    for split in Split:
        load_graphs(directory, split)
    return None


def _load_checked(directory: Path) -> Any:
    """All checks of ``timetrial data verify``; a failed one is a finding."""
    from timetrial.workloads.data.catalogue import DATA_SETS
    from timetrial.workloads.data.checks import findings

    return [finding.passed for finding in findings(DATA_SETS["ogbg"], directory)]


def _load_raw_graphs(directory: Path) -> Any:
    from timetrial.workloads.data import ogbg

    path = ogbg.raw_file(directory / "raw")
    return ogbg.damage(path)


def _write_criteo(directory: Path) -> None:
    from timetrial.workloads.data.synthetic import criteo_text

    (directory / "day_0").write_bytes(criteo_text(20))


def _load_criteo(directory: Path) -> Any:
    from timetrial.workloads.data.criteo import texts
    from timetrial.workloads.data.criteo_text import parse

    bad: list[str] = []
    for text in texts(directory / "day_0"):
        parse(text, 1, lambda line, rule: bad.append(rule))
    return bad


def _load_records(directory: Path) -> Any:
    from timetrial.workloads.data import ogbg
    from timetrial.workloads.data.prepared import Records

    records = Records(directory / ogbg.NAME, "train")
    return [records[row] for row in range(len(records))]


def _write_volume(directory: Path) -> None:
    from timetrial.workloads.data.synthetic import write_fastmri_volume

    write_fastmri_volume(directory / "file1.h5", 2, 320, seed=0)


def _load_volume(directory: Path) -> Any:
    from timetrial.workloads.data.fastmri import Volume
    from timetrial.workloads.data.preparing import BadRecords

    bad = BadRecords(10)
    for _ in Volume(directory / "file1.h5", "train")._slices(bad):
        pass
    return bad


def _write_images(directory: Path) -> None:
    import numpy as np
    from raw_files import encoded, picture, tar_of

    rng = np.random.default_rng(0)
    images = {f"n01440764_{i}.JPEG": encoded(picture(rng)) for i in range(3)}
    (directory / "images.tar").write_bytes(tar_of(images))
    (directory / "one.jpeg").write_bytes(encoded(picture(rng)))


def _load_images(directory: Path) -> Any:
    from timetrial.framework.errors import UserError
    from timetrial.workloads.data.imagenet import members
    from timetrial.workloads.data.jpeg import decoded, rgb_jpeg

    path = directory / "images.tar"
    with path.open("rb") as raw:
        found = [(member.name, member.offset_data, member.size) for member in members(path, raw, 0)]
    try:
        decoded(rgb_jpeg((directory / "one.jpeg").read_bytes()))
    except ValueError as error:
        raise UserError(str(error)) from error
    return found


# Checkpoints


def _state() -> Any:
    import optax
    from tiny import TinyWorkload

    from timetrial.framework.step import Program

    return Program(TinyWorkload(), optax.adam(0.1)).init(3)


def _write_checkpoint(directory: Path) -> None:
    from timetrial.framework.checkpoint import Checkpoints, Saved

    checkpoints = Checkpoints(directory / "run", "me")
    saved = Saved(0, {"train": 1.5}, "run.jsonl", 77, "id", {"a": "b"}, made_by={"jax": "0.1"})
    checkpoints.save(_state(), saved)
    checkpoints.close()


def _load_checkpoint(directory: Path) -> Any:
    import jax

    from timetrial.framework.checkpoint import Checkpoints
    from timetrial.framework.errors import UserError

    loaded = Checkpoints(directory / "run", "me").latest()
    if loaded is None:
        raise UserError("no whole checkpoint")
    params = loaded.state(_state()).params
    return loaded.saved, [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(params))]


def _load_checkpoint_with_new_sums(directory: Path) -> Any:
    """As somebody's own checkpoint, whose checksums fit."""
    from timetrial.framework.checkpoint import _sums_of

    path = directory / "run" / "1"
    (path / "SHA256SUMS").write_text(_sums_of(path))
    return _load_checkpoint(directory)


LOADERS: dict[str, Loader] = {
    loader.name: loader
    for loader in (
        Loader("journal", _write_journal, _load_journal, 3, sealed=True, same=_same_journal),
        Loader("journal of 0.2", _write_old_journal, _load_journal, 3),
        Loader("checkpoint", _write_checkpoint, _load_checkpoint, 1, sealed=True),
        Loader(
            "own checkpoint", _write_checkpoint, _load_checkpoint_with_new_sums, 1, "**/run.json"
        ),
        Loader("calibration", _write_calibration, _load_calibration, 2, sealed=True),
        Loader("pool", _write_pool, _load_pool, 1, sealed=True),
        Loader("exported preset", _write_preset, _load_preset, 2, sealed=True),
        Loader("preset", _write_plain_preset, _load_plain_preset, 2),
        Loader("suite", _write_suite, _load_suite, 0.5),
        Loader("space", _write_space, _load_space, 2),
        Loader("points", _write_points, _load_points, 2),
        Loader("command line", _write_words, _load_words, 3, valid=False),
        Loader("weights", _write_weights, _load_weights, 2, sealed=True),
        Loader("bare weights", _write_bare_weights, _load_weights, 2),
        Loader("PyLO weights", _write_pylo, _load_pylo, 2),
        *_celo_loaders("celo"),
        *_celo_loaders("celo_adam"),
        *_celo_loaders("celo2"),
        Loader("targets.csv", _write_targets, _load_targets, 2, sealed=True),
        Loader("targets.json", _write_json_targets, _load_json_targets, 2),
        Loader("times.csv", _write_times, _load_times, 2, sealed=True),
        Loader("wide times.csv", _write_wide_times, _load_times, 2),
        Loader("AlgoPerf logs", _write_algoperf, _load_algoperf, 3),
        Loader("evaluations.json", _write_evaluations, _load_evaluations, 2, sealed=True),
        Loader("study journal", _journal_study, _journal_study, 1, "study.log"),
        Loader("study database", _sqlite_study, _sqlite_study, 0.3, "study.db"),
        Loader("MLflow database", _write_mlflow, _load_mlflow, 0.2, "mlflow.db"),
        Loader("MLflow artifact", _write_mlflow, _load_mlflow, 0.2, "**/evaluations.json"),
        Loader("data manifest", _write_manifest, _load_manifest, 2),
        Loader("embedded data", _write_embedded, _load_embedded, 1),
        Loader("graphs", _write_graphs, _load_graphs, 1, "ogbg*/**/*.npy"),
        Loader("prepared data", _write_graphs, _load_checked, 0.3, "ogbg*/**/*"),
        Loader("raw graphs", _write_graphs, _load_raw_graphs, 1, "raw/*"),
        Loader("records", _write_graphs, _load_records, 0.5, "ogbg*/**/*"),
        Loader("raw fastMRI", _write_volume, _load_volume, 1),
        Loader("raw ImageNet", _write_images, _load_images, 1),
        Loader("raw Criteo", _write_criteo, _load_criteo, 1),
    )
}
