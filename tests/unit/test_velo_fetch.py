"""Fetching VeLO weights from a faulty local HTTP server."""

from __future__ import annotations

import hashlib
import os
import pathlib
import resource
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scripted_server
from scripted_server import Answer, Handler, Server, body, status

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.weights import (
    container,
    find_weights,
    google_weights_path,
    load_weights,
)
from timetrial.optimizers.velo.weights.fetch import LICENCE_NOTE, FetchError, fetch_velo


def _container(hidden_size: int) -> bytes:
    rng = np.random.default_rng(hidden_size)
    shapes = layout.shapes(hidden_size, 16)
    arrays = {p: rng.standard_normal(s).astype(np.float32) for p, s in shapes.items()}
    return container.encode(arrays, "served", 1)


DATA = _container(64)
SIZE = len(DATA)
DIGEST = hashlib.sha256(DATA).hexdigest()


def plain(data: bytes = DATA, sent: int | None = None, **headers: str) -> Answer:
    return scripted_server.plain(data, sent, **headers)


def ranged(sent: int | None = None, data: bytes = DATA, pause: float = 0.0) -> Answer:
    return scripted_server.ranged(data, sent, pause)


def stalling(after: int, seconds: float = 5.0) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        handler.end_headers()
        handler.wfile.write(DATA[:after])
        handler.wfile.flush()
        handler.connection.settimeout(seconds)
        handler.rfile.read(1)  # returns as soon as the client hangs up

    return answer


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(SIZE))
    handler.end_headers()
    body(handler, DATA[:2000], pause=0.02, piece=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server(ranged())
    yield running
    running.stop()


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "cache" / "params"


def fetch(server: Server, target: pathlib.Path, **changes: Any) -> pathlib.Path:
    settings: dict[str, Any] = {
        "url": server.url,
        "destination": target,
        "expected_bytes": SIZE,
        "timeout_seconds": 5.0,
        "attempts": 3,
        "backoff_seconds": 0.01,
    }
    return fetch_velo(**(settings | changes))


def assert_in_place(target: pathlib.Path) -> None:
    assert target.read_bytes() == DATA
    recorded = target.with_name("params.sha256").read_text()
    assert recorded == f"{DIGEST}  params\n"
    assert sorted(p.name for p in target.parent.iterdir()) == ["params", "params.sha256"]
    assert load_weights(target).sha256 == DIGEST


def assert_failed(
    server: Server, target: pathlib.Path, match: str, part: int | None = None, **changes: Any
) -> None:
    """Fetching fails with one helpful line, and leaves at most a part of the given size."""
    with pytest.raises(FetchError, match=match) as caught:
        fetch(server, target, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message
    assert str(target) in message
    left = {path.name: path.stat().st_size for path in target.parent.iterdir()}
    assert left == ({} if part is None else {"params.part": part})


# ---------------------------------------------------------------- what works


def test_download(server: Server, target: pathlib.Path) -> None:
    seen: list[tuple[int, int]] = []
    made = fetch(server, target, progress=lambda done, total: seen.append((done, total)))
    assert made == target
    assert_in_place(target)
    assert server.ranges == [None]
    assert seen[0] == (0, SIZE)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert not stat.S_IMODE(target.stat().st_mode) & 0o111


def test_into_the_cache_where_it_is_found(
    server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path / "new"))
    made = fetch_velo(url=server.url, expected_bytes=SIZE)
    assert made == google_weights_path()
    assert (find_weights().source, find_weights().sha256) == ("google", DIGEST)


def test_nothing_is_asked_when_the_weights_are_there(server: Server, target: pathlib.Path) -> None:
    fetch(server, target)
    fetch(server, target)
    assert len(server.ranges) == 1


def test_damaged_weights_are_replaced(server: Server, target: pathlib.Path) -> None:
    fetch(server, target)
    damaged = bytearray(DATA)
    damaged[5000] ^= 1  # still a valid container: only the recorded sha256 tells
    target.write_bytes(damaged)
    fetch(server, target)
    assert_in_place(target)
    assert len(server.ranges) == 2


def test_server_without_content_length(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain(Content_Length="")]
    fetch(server, target)
    assert_in_place(target)


def test_redirect(server: Server, target: pathlib.Path) -> None:
    server.answers = [status(302, Location=f"{server.url}/elsewhere"), ranged()]
    fetch(server, target)
    assert_in_place(target)


# ---------------------------------------------------------------- resuming


def test_interrupted_download_is_resumed_in_the_same_call(
    server: Server, target: pathlib.Path
) -> None:
    server.answers = [ranged(sent=100_000), ranged(sent=20_000), ranged()]
    seen: list[int] = []
    fetch(server, target, progress=lambda done, total: seen.append(done))
    assert_in_place(target)
    assert server.ranges == [None, "bytes=100000-", "bytes=120000-"]
    assert seen == sorted(seen)


def test_interrupted_download_is_resumed_by_the_next_call(
    server: Server, target: pathlib.Path
) -> None:
    server.answers = [ranged(sent=100_000)]
    assert_failed(server, target, "ended after 100,000 of", part=100_000, attempts=1)
    server.answers = [ranged()]
    first: list[int] = []
    fetch(server, target, progress=lambda done, total: first.append(done))
    assert_in_place(target)
    assert server.ranges == [None, "bytes=100000-"]
    assert first[0] == 100_000


def test_download_stopped_by_the_user_is_resumed(server: Server, target: pathlib.Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, target, progress=stop)
    size = target.with_name("params.part").stat().st_size
    assert 0 < size < SIZE
    fetch(server, target)
    assert server.ranges == [None, f"bytes={size}-"]
    assert_in_place(target)


def test_server_that_ignores_ranges(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain(sent=100_000), plain()]
    fetch(server, target)
    assert server.ranges == [None, "bytes=100000-"]
    assert_in_place(target)


def test_wrong_part_is_thrown_away(server: Server, target: pathlib.Path) -> None:
    """A part of something else is only noticed at the end; then all is fetched anew, once."""
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(b"x" * 100_000)
    fetch(server, target)
    assert server.ranges == ["bytes=100000-", None]
    assert_in_place(target)


def test_complete_part_needs_no_network(server: Server, target: pathlib.Path) -> None:
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(DATA)
    fetch(server, target)
    assert server.ranges == []
    assert_in_place(target)


@pytest.mark.parametrize("content", [b"x" * SIZE, b"x" * (SIZE + 5)])
def test_complete_but_wrong_part(server: Server, target: pathlib.Path, content: bytes) -> None:
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(content)
    fetch(server, target)
    assert server.ranges == [None]
    assert_in_place(target)


def test_range_refused(server: Server, target: pathlib.Path) -> None:
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(DATA[:1000])
    server.answers = [status(416), ranged()]
    fetch(server, target)
    assert server.ranges == ["bytes=1000-", None]
    assert_in_place(target)


@pytest.mark.parametrize("span", ["bytes 0-9/10", "bytes 999-5/*", "nonsense", ""])
def test_wrong_range_is_refused(server: Server, target: pathlib.Path, span: str) -> None:
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(DATA[:1000])
    server.answers = [status(206, Content_Range=span)]
    assert_failed(server, target, "expected bytes 1000 to the end", part=1000)


# ---------------------------------------------------------------- servers that fail


def test_transient_errors_are_retried(server: Server, target: pathlib.Path) -> None:
    server.answers = [status(503), status(500), ranged()]
    fetch(server, target)
    assert_in_place(target)


def test_retries_are_bounded(server: Server, target: pathlib.Path) -> None:
    server.answers = [status(500)]
    assert_failed(server, target, r"answers 500 Internal Server Error \(gave up after 3 attempts")
    assert len(server.ranges) == 3


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusals_are_not_retried(server: Server, target: pathlib.Path, code: int) -> None:
    server.answers = [status(code)]
    assert_failed(server, target, f"the server answers {code}")
    assert len(server.ranges) == 1


def test_progress_earns_new_attempts(server: Server, target: pathlib.Path) -> None:
    server.answers = [ranged(sent=SIZE // 8)]
    fetch(server, target, attempts=2)
    assert 8 <= len(server.ranges) <= 9
    assert_in_place(target)


def test_tiny_progress_does_not(server: Server, target: pathlib.Path) -> None:
    server.answers = [ranged(sent=10)]
    assert_failed(server, target, "ended after 30 of", part=30)
    assert len(server.ranges) == 3


def test_losing_and_gaining_is_no_progress(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain(sent=50_000)]
    assert_failed(server, target, "ended after 50,000 of", part=50_000)
    assert len(server.ranges) == 3


def test_stalled_connection(server: Server, target: pathlib.Path) -> None:
    server.answers = [stalling(after=100_000), ranged()]
    started = time.monotonic()
    fetch(server, target, timeout_seconds=0.3)
    assert time.monotonic() - started < 25  # the default would wait for 30
    assert server.ranges == [None, "bytes=100000-"]
    assert_in_place(target)


def test_dripping_connection_counts_as_stalled(server: Server, target: pathlib.Path) -> None:
    server.answers = [dripping]
    started = time.monotonic()
    with pytest.raises(FetchError, match="stalled after"):
        fetch(server, target, timeout_seconds=0.3, attempts=2)
    assert time.monotonic() - started < 25  # the default would wait for 30


def test_server_that_never_answers(server: Server, target: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/params"
        with pytest.raises(FetchError, match="no answer from the server: timed out"):
            fetch(server, target, url=url, timeout_seconds=0.2, attempts=2)


def test_no_server(server: Server, target: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        server.url = f"http://127.0.0.1:{closed.getsockname()[1]}/params"
    assert_failed(server, target, r"no answer from the server.*`timetrial fetch velo --from FILE`")


def test_no_network(target: pathlib.Path) -> None:
    with pytest.raises(FetchError, match="no network") as caught:
        fetch_velo(url="https://nowhere.invalid/params", destination=target)
    assert "https://nowhere.invalid/params" in str(caught.value)
    assert str(target) in str(caught.value)


def test_no_http(server: Server, target: pathlib.Path) -> None:
    def nonsense(handler: Handler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    server.answers = [nonsense]
    assert_failed(server, target, "no answer from the server")


# ---------------------------------------------------------------- servers that serve garbage


def test_garbage_of_the_right_size(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain((b"garbage" * SIZE)[:SIZE])]
    assert_failed(server, target, "the server sent something else: .*no usable VeLO weights")
    assert len(server.ranges) == 1


def test_garbage_after_a_good_part(server: Server, target: pathlib.Path) -> None:
    server.answers = [ranged(sent=100_000), ranged(data=b"\xff" * SIZE)]
    assert_failed(server, target, "the server sent something else")


@pytest.mark.parametrize("size", [0, 10, SIZE - 1, SIZE + 1, 10 * SIZE])
def test_wrong_size(server: Server, target: pathlib.Path, size: int) -> None:
    server.answers = [plain((DATA * 10)[:size])]
    assert_failed(
        server, target, f"expected a file of {SIZE:,} bytes, the server has one of {size}"
    )
    assert len(server.ranges) == 1


def test_endless_file_is_cut_off(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain(DATA * 10, Content_Length="")]
    assert_failed(server, target, "got more")


def test_web_page_of_a_captive_portal_does_not_cost_the_part(
    server: Server, target: pathlib.Path
) -> None:
    target.parent.mkdir()
    target.with_name("params.part").write_bytes(DATA[:1000])
    server.answers = [plain(b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8")]
    assert_failed(server, target, "a web page instead", part=1000)


def test_compressed_answer_is_refused(server: Server, target: pathlib.Path) -> None:
    server.answers = [plain(Content_Encoding="gzip")]
    assert_failed(server, target, "compressed")


@pytest.mark.parametrize("elsewhere", ["http://example.invalid/params", "file:///etc/passwd"])
def test_redirects_to_unsafe_places_are_refused(
    server: Server, target: pathlib.Path, elsewhere: str
) -> None:
    server.answers = [status(302, Location=elsewhere)]
    assert_failed(server, target, "redirect")


@pytest.mark.parametrize("url", ["http://example.invalid/x", "file:///etc/passwd", "params", ""])
def test_unsafe_urls_are_refused(target: pathlib.Path, url: str) -> None:
    with pytest.raises(ValueError, match="begins with https://"):
        fetch_velo(url=url, destination=target)
    assert not target.parent.exists()


# ---------------------------------------------------------------- from a file


def test_from_a_file(server: Server, target: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "brought"
    source.write_bytes(DATA)
    fetch(server, target, source_file=source)
    assert_in_place(target)
    assert server.ranges == []
    assert source.read_bytes() == DATA


def test_from_a_file_replaces_what_is_there(
    server: Server, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = _container(64).replace(b"served", b"SERVED")
    (tmp_path / "brought").write_bytes(other)
    fetch(server, target)
    fetch(server, target, source_file=tmp_path / "brought")
    assert load_weights(target).gen_id == "SERVED"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        (DATA[:-1], f"expected {SIZE:,} bytes, got {SIZE - 1:,}"),
        (b"x" * SIZE, "no usable VeLO weights"),
    ],
)
def test_from_a_wrong_file(
    server: Server,
    target: pathlib.Path,
    tmp_path: pathlib.Path,
    content: bytes | None,
    match: str,
) -> None:
    fetch(server, target)
    if content is not None:
        (tmp_path / "brought").write_bytes(content)
    with pytest.raises(FetchError, match=match):
        fetch(server, target, source_file=tmp_path / "brought")
    assert_in_place(target)


def test_from_a_directory(server: Server, target: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FetchError, match="not taken"):
        fetch(server, target, source_file=tmp_path)


# ---------------------------------------------------------------- the disk


def test_unwritable_places(server: Server, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "params", tmp_path / "file" / "deeper" / "params"):
        with pytest.raises(FetchError, match=r"(File exists|Not a directory).*TIMETRIAL_CACHE"):
            fetch(server, place)
    (tmp_path / "params").mkdir()
    with pytest.raises(FetchError, match="is a directory"):
        fetch(server, tmp_path / "params")
    assert server.ranges == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_directory(server: Server, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FetchError, match="Permission denied"):
            fetch(server, tmp_path / "params")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("from_file", [False, True])
def test_full_disk(
    server: Server, target: pathlib.Path, tmp_path: pathlib.Path, from_file: bool
) -> None:
    """A limit on the size of files fails at the same call as a full disk does."""
    source = tmp_path / "brought"
    source.write_bytes(DATA)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        with pytest.raises(FetchError, match=r"cannot write VeLO's weights.*File too large"):
            fetch(server, target, source_file=source if from_file else None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = [path.name for path in target.parent.iterdir()]
    assert left == ([] if from_file else ["params.part"])
    fetch(server, target)
    assert_in_place(target)
    if not from_file:
        assert server.ranges[1] is not None  # what was on the disk has been used


# ---------------------------------------------------------------- at the same time


def test_concurrent_fetches(server: Server, target: pathlib.Path) -> None:
    """Whoever comes while another is at work uses a part of its own; all end well."""
    server.answers = [ranged(pause=0.004)]
    made: list[pathlib.Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(fetch(server, target))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert made == [target] * 4
    assert len(server.ranges) == 4  # they did overlap
    assert_in_place(target)


def test_a_second_fetch_does_not_touch_the_part_of_the_first(
    server: Server, target: pathlib.Path
) -> None:
    release = threading.Event()

    def halfway(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        handler.end_headers()
        handler.wfile.write(DATA[:100_000])
        handler.wfile.flush()
        release.wait(60)
        handler.wfile.write(DATA[100_000:])

    server.answers = [halfway, status(404)]
    first = threading.Thread(target=fetch, args=(server, target))
    first.start()
    part = target.with_name("params.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(FetchError, match="404"):
        fetch(server, target)
    assert [path.name for path in target.parent.iterdir()] == ["params.part"]
    release.set()
    first.join()
    assert_in_place(target)


def test_licence_note() -> None:
    assert "issues/272" in LICENCE_NOTE
    assert "not stated a licence" in LICENCE_NOTE


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_seconds": 0.0},
        {"attempts": 0},
        {"backoff_seconds": -1.0},
        {"expected_bytes": 0},
        {"expected_bytes": 1 << 40},
    ],
)
def test_settings_are_checked(server: Server, target: pathlib.Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        fetch(server, target, **wrong)
