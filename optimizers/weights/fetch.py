"""Fetches published weights by name, with the cards beside them and a record of their origin.

Boundary: the command ``timetrial fetch NAME``; ``place`` brings the file itself. With it and
``download`` the only modules of the optimizers that talk to the network.

Nobody publishes the digests of these files. The first fetch records the one it finds, in
``FILE.json``; a later fetch of other bytes says so (trust on first use).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import io
import json
import os
import pathlib
from typing import Any, Final

from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.framework.secrets import masked_tree
from timetrial.optimizers.weights.catalogue import PUBLISHED, Published, resolved
from timetrial.optimizers.weights.download import DownloadError, OnBytes, Request, download
from timetrial.optimizers.weights.place import Fetch, FetchError, bring, make_fetch
from timetrial.optimizers.weights.trees import WeightsError, one_line

MAX_CARD_BYTES: Final = 1 << 20
"""Larger cards are not kept."""

_MAX_RECORD_BYTES: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Published weights in place.

    Attributes:
        path: the file.
        sha256: its hex digest.
        size_bytes: its size.
        notes: what a user should know: another digest than before, another size than published,
            cards that are not there.
    """

    path: pathlib.Path
    sha256: str
    size_bytes: int
    notes: tuple[str, ...]


def fetch_published(
    name: str,
    *,
    source_file: str | os.PathLike[str] | None = None,
    sha256: str = "",
    again: bool = False,
    progress: OnBytes | None = None,
    timeout_seconds: float = 30.0,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
) -> Fetched:
    """Puts published weights into the cache, unless they are there already.

    Args:
        name: a name of ``PUBLISHED``.
        source_file: a copy of the file, for a machine without network.
        sha256: expected hex digest; "" accepts any valid file.
        again: download even if valid weights are in place.
        progress: called with (bytes so far, bytes in all) while bytes arrive.
        timeout_seconds: as in ``download.Request``.
        attempts: as in ``download.Request``.
        backoff_seconds: as in ``download.Request``.

    Raises:
        UserError: unknown name, or an unsafe ``HF_ENDPOINT``.
        FetchError: as for ``bring``.
    """
    if name not in PUBLISHED:
        raise UserError(f"expected one of {', '.join(PUBLISHED)}, got {name!r}")
    entry = PUBLISHED[name]
    fetch = _make_fetch(
        entry,
        sha256=sha256.lower(),
        timeout_seconds=timeout_seconds,
        attempts=attempts,
        backoff_seconds=backoff_seconds,
    )
    downloaded = bring(fetch, source_file=source_file, progress=progress, again=again)
    try:
        notes = _keep_cards(fetch) if downloaded else []
        origin = {"url": fetch.request.url if downloaded else None, "file": None}
        if source_file is not None:
            origin["file"] = str(source_file)
        digest, size, more = _record(entry, fetch.target, origin)
    except OSError as error:
        raise FetchError(
            f"cannot write the record of {entry.title}'s weights: "
            f"{error.filename or fetch.target}: {error.strerror or error}"
        ) from error
    return Fetched(fetch.target, digest, size, (*more, *notes))


def _make_fetch(entry: Published, **settings: Any) -> Fetch:
    """The fetch; a mirror with an unsafe URL is the user's error."""
    try:
        return make_fetch(entry, **settings)
    except WeightsError:
        raise
    except ValueError as error:
        setting = "HF_ENDPOINT: " if entry.on_hub else ""
        raise UserError(f"{setting}{error}") from None


def _keep_cards(fetch: Fetch) -> list[str]:
    """Downloads the files that describe the weights; returns notes on those that are not there."""
    notes = []
    for address in fetch.entry.cards:
        name = address.rsplit("/", 1)[1]
        patience = dataclasses.replace(
            fetch.request,
            url=resolved(address),
            expected_bytes=None,
            attempts=min(2, fetch.request.attempts),
            max_bytes=MAX_CARD_BYTES,
        )
        try:
            card = _download_small(patience)
        except DownloadError as error:
            notes.append(f"{name} not kept: {one_line(error)}")
        else:
            write_atomically(fetch.target.with_name(name), card)
    return notes


def _download_small(request: Request) -> bytes:
    file = io.BytesIO()
    download(request, file, lambda: None, None)
    return file.getvalue()


def record_path(path: pathlib.Path) -> pathlib.Path:
    """File that holds the origin of fetched weights."""
    return path.with_name(path.name + ".json")


def _record(
    entry: Published, path: pathlib.Path, origin: dict[str, str | None]
) -> tuple[str, int, list[str]]:
    """Records the origin of the file in place, unless it is recorded already.

    Returns:
        Digest and size of the file, and notes on what differs from what was expected.
    """
    data = path.read_bytes()
    digest, size = hashlib.sha256(data).hexdigest(), len(data)
    before, notes = _read_record(record_path(path)), []
    if size != entry.size_bytes:
        notes.append(f"this file has {size:,} bytes, the published one {entry.size_bytes:,}")
    if before.get("sha256") == digest:
        return digest, size, notes
    if "sha256" in before:
        notes.append(
            f"these are other weights than before: sha256 {digest}, fetched on "
            f"{one_line(before.get('date'), 40)} was {one_line(before['sha256'], 64)}"
        )
    record = {
        "name": entry.name,
        **masked_tree(origin),
        "page": entry.page,
        "bytes": size,
        "sha256": digest,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_atomically(record_path(path), json.dumps(record, indent=2).encode() + b"\n")
    return digest, size, notes


def _read_record(path: pathlib.Path) -> dict[str, Any]:
    """The record of an earlier fetch; empty if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        found = json.loads(file.read(_MAX_RECORD_BYTES))
        if isinstance(found, dict):
            return found
    return {}
