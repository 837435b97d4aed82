"""The record of a meta-training: its journal, the mirror of it in MLflow, and its checkpoint.

Boundary: the only module of the command that records; makes no steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from timetrial.bench.metatrain.config import Command
from timetrial.bench.resuming import place_tag
from timetrial.framework.checkpoint import Checkpoints, Saved
from timetrial.framework.files import wait_for_room
from timetrial.framework.packing import bytes_of
from timetrial.framework.records import Row
from timetrial.framework.state import TrainState
from timetrial.framework.types import Condition, Direction, Status
from timetrial.framework.yaml_files import yaml_of
from timetrial.optimizers.metatraining.stage import Stage
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import environment_tags
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.recording import resume_recording, start_recording


class MetatrainRecording:
    """Records one meta-training; all pieces share one journal and one run in MLflow.

    MLflow receives only rows before the last checkpoint; a later piece repeats the others.

    Args:
        stage: stage of the meta-training.
        command: name of the training.
        store: store of the run.
        identity: digest of the checkpoint; see ``config.identity``.
        saved: checkpoint to resume from, or None.

    Attributes:
        evaluations: validations so far, those of earlier pieces included.
    """

    def __init__(
        self,
        stage: Stage,
        command: Command,
        store: Store,
        identity: str,
        saved: Saved | None,
    ) -> None:
        self._checkpoints = Checkpoints(checkpoint_directory(command, stage), identity)
        header = run_header(stage, command, identity)
        if saved is None:
            self._recording = start_recording(store, header, resumable=True)
        else:
            tags = {**header.tags, schema.RESUMED_AT: str(saved.step)}
            self._recording = resume_recording(store, saved.journal, saved.offset, tags)
        self.evaluations = list(self._recording.earlier)

    def log(self, row: Row) -> None:
        """Records a row of an outer step."""
        self._recording.log([row])

    def log_validation(self, row: Row) -> None:
        """Records a validation."""
        self.evaluations.append(row)
        self.log(row)

    def save(self, state: TrainState, seconds: Mapping[str, float]) -> None:
        """Writes a checkpoint in the background and sends the rows before the last one.

        Args:
            state: state of the training.
            seconds: seconds by account.
        """
        jax.block_until_ready(state)
        recording = self._recording
        recording.sync()
        offset = recording.offset
        saved = Saved(int(state.step), dict(seconds), recording.path.name, offset, recording.run_id)
        directory = self._checkpoints.directory
        wait_for_room(
            lambda: self._checkpoints.save(state, saved, lambda: recording.saved(offset)),
            directory,
            bytes_of(state),
        )
        recording.mirror.flush()

    def finish(self, status: Status, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the journal, waits for the last checkpoint and sends the remaining rows."""
        self._recording.end(status, tags, summary)
        self._checkpoints.close()
        self._recording.send()


def checkpoint_directory(command: Command, stage: Stage) -> Path:
    """Directory of a stage's checkpoints."""
    return command.directory / stage.name / "checkpoints"


def run_header(stage: Stage, command: Command, identity: str) -> RunHeader:
    """The header of the journal: name, tags to group by, configuration."""
    settings = stage.settings
    title = f"{command.name} {stage.name}".strip()
    tree: dict[str, Any] = {"rule": settings.rule, "stage": stage.name}
    tree |= {**dataclasses.asdict(settings), **dataclasses.asdict(command)}
    params = {
        key: json.dumps(value) if isinstance(value, tuple | dict) else str(value)
        for key, value in tree.items()
    }
    tags = {
        schema.WORKLOAD: "metatraining",
        schema.OPTIMIZER: title,
        schema.SEED: str(settings.seed),
        schema.CONDITION: Condition.STEP,
        schema.BUDGET: str(settings.steps),
        schema.METRIC: "score",
        schema.DIRECTION: Direction.MINIMIZE.value,
        schema.CONFIG_HASH: identity,
        **place_tag(Path(command.tracking.root), checkpoint_directory(command, stage)),
        **environment_tags(),
    }
    return RunHeader(
        experiment=command.tracking.experiment,
        run_name=f"metatrain {title} seed {settings.seed}",
        tags=tags,
        params=params,
        config_yaml=yaml_of(json.loads(json.dumps(tree))),
    )
