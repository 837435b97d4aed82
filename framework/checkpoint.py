"""Checkpoints: the state of a run in a directory, to continue it in another process.

Boundary: one directory per run; ``framework.saving`` decides when, the caller chooses the run.

Arrays are written in the background. Orbax writes the large ones, each host its own parts; small
ones are packed into one file. A checkpoint is whole once its file ``SHA256SUMS`` exists, which
``sha256sum -c`` reads, too. A changed or incomplete one is never used: it is set aside, and the one
before it counts.

Update t draws from ``fold_in(key, t)``, and the order of the data is a function of (seed, step).
So a resumed run is bitwise the uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jax

from timetrial.framework.errors import UserError
from timetrial.framework.files import make_private_directory, write_atomically
from timetrial.framework.hosts import first_hosts
from timetrial.framework.packing import described, read_arrays, recorded, save_args, split
from timetrial.framework.state import TrainState

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

FORMAT: Final = 3
"""Version of the format."""

KEPT: Final = 2
"""Checkpoints to keep while a run goes on."""

_SUMS: Final = "SHA256SUMS"
_META: Final = "run.json"
_ARRAYS: Final = "arrays"  # Orbax's directory
_PACKED: Final = "packed"
_DAMAGED: Final = ".damaged"

_OS_ERROR: Final = re.compile(r"os_error_code='(\d+)'")  # in tensorstore's messages

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Saved:
    """Contents of a checkpoint beside the arrays.

    Attributes:
        step: updates made; the next batch is that of this update.
        seconds: seconds by account of the clock.
        journal: file name of the run's journal.
        offset: size of the journal at this moment, in bytes.
        run_id: identity of the journal.
        notes: data of the caller, returned unchanged.
        cpu_seconds: CPU seconds by account of the clock.
        machine: sums of the clock's meter.
        ending: name of the ``StopReason`` of a run that is over, else "".
        stalled_updates: updates so far that began on an idle device.
        callbacks: states of callbacks, by name.
        made_by: what computed the run: versions, devices, precision.
    """

    step: int
    seconds: Mapping[str, float]
    journal: str = ""
    offset: int = 0
    run_id: str = ""
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ending: str = ""
    stalled_updates: int = 0
    callbacks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    made_by: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A checkpoint as read back; its checksums are right.

    Attributes:
        path: its directory.
        saved: contents beside the arrays.
    """

    path: Path
    saved: Saved
    _arrays: Sequence[Mapping[str, Any]]

    def state(self, like: TrainState) -> TrainState:
        """The saved state.

        Args:
            like: fresh state of the same run; gives structure, shapes, types and devices. Large
                arrays of a state on one device are read without a second copy.

        Raises:
            UserError: the saved state belongs to another model or optimizer.
        """
        with_paths, structure = jax.tree_util.tree_flatten_with_path(like)
        expected = {jax.tree_util.keystr(path): leaf for path, leaf in with_paths}
        found = {str(array["name"]): array for array in self._arrays}
        for name in sorted({*expected, *found}):
            want, got = described(expected.get(name)), recorded(found.get(name))
            if want != got:
                raise UserError(
                    f"checkpoint {self.path}: expected {name} to be {want}, got {got}: the model "
                    f"or the optimizer is another one than when it was saved; {STARTS_ANEW}"
                )
        try:
            packed = (self.path / _PACKED).read_bytes()
            content = read_arrays(packed, self.path / _ARRAYS, found, expected)
        except Exception as error:  # decoders raise many types
            raise UserError(
                f"checkpoint {self.path}: expected the arrays of run.json, got others "
                f"({type(error).__name__}: {error}); {STARTS_ANEW}"
            ) from error
        restored = [content[name] for name in expected]
        state: TrainState = jax.tree_util.tree_unflatten(structure, restored)
        return state


STARTS_ANEW: Final = "without this directory the run starts anew"


class Checkpoints:
    """The checkpoints of one run, numbered in order of saving.

    Args:
        directory: directory of this run; made when something is saved. Its parent must be
            accessible to all hosts of the run.
        identity: digest of the configuration.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory = directory
        self._identity = identity
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        self._waiter = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._number = max((int(path.name) for path in self._numbered()), default=0)
        self.seconds = 0.0

    def latest(self) -> Loaded | None:
        """The last whole checkpoint, None without; a damaged one is named and set aside.

        Of several hosts the first one tidies up.

        Raises:
            UserError: it was saved for another configuration or in another format.
        """
        for path in sorted(self._numbered(), key=lambda path: int(path.name), reverse=True):
            if not is_whole(path):  # its process was killed while it was written
                if jax.process_index() == 0:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                _check_sums(path)
                return self._loaded(path)
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                if jax.process_index() == 0:
                    _set_aside(path, error)
        return None

    def save(
        self, state: TrainState, saved: Saved, done: Callable[[], None] = lambda: None
    ) -> None:
        """Saves a state; returns once it is copied. All hosts of a run call it together.

        A save still under way is waited for first.

        Args:
            state: state of the run; its buffers may be donated afterwards.
            saved: all other contents.
            done: called from another thread once the checkpoint is whole.

        Raises:
            OSError: this or the previous checkpoint cannot be written.
        """
        self.wait()
        self._number = first_hosts(self._number + 1)
        started = time.perf_counter()
        path = self.directory / str(self._number)
        arrays, packed, large = split(state)
        meta = {
            "format": FORMAT,
            "identity": self._identity,
            "arrays": arrays,
            **dataclasses.asdict(saved),
        }

        def finish() -> None:
            if large:
                with _as_os_error(path):
                    self._orbax().wait_until_finished()
            if jax.process_index() == 0:
                write_atomically(path / _PACKED, packed)
                write_atomically(path / _META, json.dumps(meta, sort_keys=True).encode())
                write_atomically(path / _SUMS, _sums_of(path).encode())
                self.remove_all_but(1 if saved.ending else KEPT)
            self.seconds = time.perf_counter() - started
            done()

        make_private_directory(self.directory)
        make_private_directory(path)
        if large:
            with _as_os_error(path):
                self._orbax().save(path / _ARRAYS, args=save_args(large))
        self._under_way = self._waiter.submit(finish)

    def wait(self) -> None:
        """Waits until the last save is whole.

        Raises:
            OSError: it cannot be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Waits for the last save and ends the threads."""
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None

    def remove_all_but(self, kept: int) -> None:
        """Removes older whole checkpoints."""
        whole = sorted(
            (path for path in self._numbered() if is_whole(path)),
            key=lambda path: int(path.name),
        )
        for path in whole[: len(whole) - kept]:
            (path / _SUMS).unlink(missing_ok=True)  # first: half of one is none
            shutil.rmtree(path, ignore_errors=True)

    def _numbered(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (path for path in self.directory.iterdir() if path.name.isdecimal())

    def _orbax(self) -> ocp.AsyncCheckpointer:
        if self._checkpointer is None:
            import orbax.checkpoint as ocp

            logging.getLogger("absl").setLevel(logging.CRITICAL)  # its notes concern no user
            self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        return self._checkpointer

    def _loaded(self, path: Path) -> Loaded:
        meta = json.loads((path / _META).read_bytes())
        for what, expected, got in (
            ("format", FORMAT, meta.pop("format")),
            ("configuration", self._identity, meta.pop("identity")),
        ):
            if expected != got:
                raise UserError(
                    f"checkpoint {path}: expected {what} {expected}, got {got}; {STARTS_ANEW}"
                )
        arrays = meta.pop("arrays")
        return Loaded(path, _checked(Saved(**meta)), [_checked_array(each) for each in arrays])


def is_whole(path: Path) -> bool:
    """True once a checkpoint has everything; its process may have been killed before."""
    return (path / _SUMS).exists()


def _sums_of(path: Path) -> str:
    """Checksums of all files, in the format of ``sha256sum``."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != _SUMS)
    if any(file.is_symlink() for file in path.rglob("*")):
        raise ValueError("it contains links")
    lines = []
    for file in files:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        lines.append(f"{digest}  {file.relative_to(path).as_posix()}\n")
    return "".join(lines)


def _checked(saved: Saved) -> Saved:
    """The same contents; raises ValueError for another type or a negative number."""
    texts = (saved.journal, saved.run_id, saved.ending, *saved.notes.values())
    texts += (*saved.made_by.values(),)
    numbers = (saved.step, saved.offset, saved.stalled_updates)
    seconds = (*saved.seconds.values(), *saved.cpu_seconds.values())
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(type(number) is int and number >= 0 for number in numbers)
        or not all(isinstance(each, float | int) and 0 <= each < math.inf for each in seconds)
        or not all(isinstance(each, float | int) for each in saved.machine.values())
        or not isinstance(saved.callbacks, dict)
    ):
        raise ValueError(f"unexpected types in {_META}")
    return saved


def _checked_array(array: Any) -> Mapping[str, Any]:
    """The same description; raises ValueError, KeyError or TypeError for another one."""
    named = isinstance(array["name"], str) and isinstance(array["dtype"], str)
    sizes = [array["at"], *array["shape"]]
    if not named or not all(type(size) is int for size in sizes) or array["at"] < -1:
        raise ValueError(f"unexpected arrays in {_META}")
    return dict(array)


def last_offset(directory: Path) -> tuple[str, int] | None:
    """Journal and offset of the last whole checkpoint in a directory, unchecked; None without."""
    for path in sorted(directory.glob(f"[0-9]*/{_SUMS}"), key=_number_of, reverse=True):
        try:
            meta = json.loads((path.parent / _META).read_bytes())
            return str(meta["journal"]), int(meta["offset"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def _number_of(path: Path) -> int:
    """Number of the checkpoint of a file; -1 for others."""
    return int(path.parent.name) if path.parent.name.isdecimal() else -1


def _check_sums(path: Path) -> None:
    """Raises ValueError when a file is missing, added or changed."""
    recorded = (path / _SUMS).read_text().splitlines()
    now = _sums_of(path).splitlines()
    different = sorted({*recorded} ^ {*now})
    if different:
        raise ValueError(f"other checksum: {different[0].partition('  ')[2] or _SUMS}")


def _set_aside(path: Path, error: Exception) -> None:
    """Renames a damaged checkpoint and says so; an earlier one of that name is removed."""
    aside = path.with_name(path.name + _DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    _log.warning(
        "checkpoint %s is damaged (%s); it is set aside as %s, and the one before it counts",
        *(path, error, aside.name),
    )


@contextlib.contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk inside Orbax into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
