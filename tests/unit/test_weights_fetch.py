"""``timetrial fetch NAME`` against a local stand-in of the Hugging Face hub."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.serialization
import pytest
from celo_theta import theta
from scripted_server import Answer, Handler, Server, plain, ranged, status
from velo_files import arrays_of

from timetrial.bench import cli
from timetrial.bench.commands.reading import WEIGHTS
from timetrial.framework.errors import UserError
from timetrial.optimizers.velo.weights import container as velo_container
from timetrial.optimizers.velo.weights import google_weights, google_weights_path
from timetrial.optimizers.weights.catalogue import PUBLISHED, published
from timetrial.optimizers.weights.fetch import MAX_CARD_BYTES, Fetched, fetch_published
from timetrial.optimizers.weights.place import FetchError

RULES = {"celo2": "celo2", "celo2-base": "celo2", "celo": "celo", "celo-adam": "celo_adam"}


def content(name: str, seed: int = 0) -> bytes:
    """A valid file of the published size, with random numbers."""
    data: bytes = flax.serialization.to_bytes(theta(RULES[name], seed, hidden_size=64))
    return data


CELO2 = content("celo2")
CELO = content("celo")


def hub(files: dict[str, bytes]) -> Answer:
    """Files by path; 404 for others."""

    def answer(handler: Handler) -> None:
        data = files.get(handler.path)
        (status(404) if data is None else ranged(data))(handler)

    return answer


def paths(name: str) -> list[str]:
    place = f"/amoudgl/{name}/resolve/main"
    return [f"{place}/{file}" for file in ("theta.state", "README.md", "config.json")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server(status(500))
    monkeypatch.setenv("HF_ENDPOINT", running.root + "/")
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path / "cache"))
    yield running
    running.stop()


def fetch(name: str, **changes: Any) -> Fetched:
    settings: dict[str, Any] = {"timeout_seconds": 5.0, "attempts": 3, "backoff_seconds": 0.01}
    return fetch_published(name, **(settings | changes))


def record(found: Fetched) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(found.path.with_name("theta.state.json").read_text())
    return read


def test_the_command_knows_every_name() -> None:
    assert tuple(PUBLISHED) == WEIGHTS


@pytest.mark.parametrize("name", RULES)
def test_weights_card_and_record(server: Server, name: str) -> None:
    data, card = content(name), b"# A card\nlicense: mit\n"
    state, readme, config = paths(name)
    server.answers = [hub({state: data, readme: card, config: b'{"lr": 1e-3}'})]
    found = fetch(name)
    assert server.paths == [state, readme, config]
    assert found.path.read_bytes() == data
    assert found.notes == ()
    assert published(name).sha256 == found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.path.with_name("README.md").read_bytes() == card
    assert found.path.with_name("config.json").read_bytes() == b'{"lr": 1e-3}'
    kept = record(found)
    assert (kept["name"], kept["url"]) == (name, server.root + state)
    assert (kept["bytes"], kept["sha256"]) == (len(data), found.sha256)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(kept["date"])
    assert datetime.timedelta(seconds=-1) <= age < datetime.timedelta(minutes=5)
    assert fetch(name).notes == ()
    assert len(server.paths) == 3  # nothing is asked when the weights are there
    assert record(found) == kept


def test_cards_that_are_not_there_are_noted(server: Server) -> None:
    state, readme, _ = paths("celo2")
    server.answers = [hub({state: CELO2, readme: b"x" * (MAX_CARD_BYTES + 1)})]
    found = fetch("celo2")
    assert [note.split(":")[0] for note in found.notes] == [
        "README.md not kept",
        "config.json not kept",
    ]
    assert "at most 1,048,576 bytes" in found.notes[0]
    assert "404" in found.notes[1]
    names = {path.name for path in found.path.parent.iterdir()}
    assert names == {"theta.state", "theta.state.sha256", "theta.state.json"}


def test_a_redirect_to_another_host(server: Server) -> None:
    """The hub sends large files from a host of its own."""
    cdn = Server(ranged(CELO))
    try:
        server.answers = [status(302, Location=f"{cdn.root}/blob?sig=1"), status(404)]
        found = fetch("celo")
        assert found.path.read_bytes() == CELO
        assert (cdn.paths, cdn.ranges) == (["/blob?sig=1"], [None])
        assert record(found)["url"] == server.root + paths("celo")[0]
    finally:
        cdn.stop()


def test_a_broken_download_is_resumed(server: Server) -> None:
    server.answers = [ranged(CELO, sent=50_000), ranged(CELO, sent=9_000), ranged(CELO)]
    seen: list[tuple[int, int]] = []
    found = fetch("celo", progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == CELO
    assert server.ranges[:3] == [None, "bytes=50000-", "bytes=59000-"]
    assert seen[-1] == (len(CELO), len(CELO))


def test_the_next_call_resumes(server: Server) -> None:
    server.answers = [ranged(CELO, sent=50_000)]
    with pytest.raises(FetchError, match="ended after 50,000 of 149,216 bytes"):
        fetch("celo", attempts=1)
    server.answers = [ranged(CELO)]
    assert fetch("celo").path.read_bytes() == CELO
    assert server.ranges[1] == "bytes=50000-"


@pytest.mark.parametrize("data", [b"", b"garbage" * 300, CELO2[:-1], content("celo-adam")])
def test_content_is_checked(server: Server, data: bytes) -> None:
    server.answers = [plain(data)]
    with pytest.raises(FetchError, match=r"the server sent something else: .*no usable Celo2") as e:
        fetch("celo2")
    assert "timetrial fetch celo2 --from FILE" in str(e.value)
    assert "\n" not in str(e.value)
    assert not list((PUBLISHED["celo2"].path.parent).iterdir())


def test_another_size_is_taken_and_noted(server: Server) -> None:
    """Authors may publish anew: a hidden size of 8, say."""
    data: bytes = flax.serialization.to_bytes(theta("celo"))
    server.answers = [plain(data, Content_Length="")]
    found = fetch("celo")
    assert found.path.read_bytes() == data
    assert f"this file has {len(data):,} bytes, the published one 149,216" in found.notes


def test_files_without_end_are_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timetrial.optimizers.weights.place.MAX_FILE_BYTES", 10_000)
    server.answers = [plain(CELO, Content_Length="")]
    with pytest.raises(FetchError, match="expected a file of at most 10,000 bytes, got more"):
        fetch("celo")
    server.answers = [plain(CELO)]
    with pytest.raises(FetchError, match="at most 10,000 bytes, the server has one of 149,216"):
        fetch("celo")


def test_another_file_than_before(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [ranged(CELO2)]
    first = fetch("celo2")
    date = record(first)["date"]
    other = content("celo2", seed=1)
    server.answers = [ranged(other)]
    for changes in ({"again": True}, {"source_file": tmp_path / "brought"}):
        (tmp_path / "brought").write_bytes(CELO2)
        found = fetch("celo2", **changes)
        note = next(note for note in found.notes if "other weights than before" in note)
        assert date in note or record(found)["date"] in note
        assert found.sha256 in note
        assert record(found)["sha256"] == found.sha256
    assert found.sha256 == first.sha256
    assert record(found) | {"date": ""} == {
        "name": "celo2",
        "url": None,
        "file": str(tmp_path / "brought"),
        "page": "https://huggingface.co/amoudgl/celo2",
        "bytes": 1833,
        "sha256": first.sha256,
        "date": "",
    }


def test_a_file_that_was_deleted_comes_back_as_another(server: Server) -> None:
    server.answers = [ranged(CELO2)]
    found = fetch("celo2")
    found.path.unlink()
    server.answers = [ranged(content("celo2", seed=1))]
    assert any("other weights than before" in note for note in fetch("celo2").notes)


def test_an_expected_digest(server: Server, tmp_path: pathlib.Path) -> None:
    server.answers = [ranged(CELO2)]
    right, wrong = hashlib.sha256(CELO2).hexdigest(), "0" * 64
    with pytest.raises(FetchError, match=f"expected sha256 {wrong}, got {right}"):
        fetch("celo2", sha256=wrong)
    (tmp_path / "brought").write_bytes(CELO2)
    with pytest.raises(FetchError, match=f"expected sha256 {wrong}, got {right}"):
        fetch("celo2", sha256=wrong, source_file=tmp_path / "brought")
    assert fetch("celo2", sha256=right.upper()).sha256 == right


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b"[" * 100_000, b"\xff"])
def test_a_damaged_record_is_replaced(server: Server, damage: bytes) -> None:
    server.answers = [ranged(CELO2)]
    found = fetch("celo2")
    found.path.with_name("theta.state.json").write_bytes(damage)
    assert fetch("celo2").notes == ()
    assert record(found)["sha256"] == found.sha256


@pytest.mark.parametrize("place", ["http://example.invalid", "file:///etc", "hub", "ftp://x"])
def test_unsafe_mirrors_are_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", place)
    with pytest.raises(UserError, match="HF_ENDPOINT: expected a URL that begins with https://"):
        fetch("celo")


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"expected one of velo, celo2, .*, got 'sinv6'"):
        fetch("sinv6")


def test_the_command(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [hub({paths("celo2")[0]: CELO2})]
    digest = hashlib.sha256(CELO2).hexdigest()
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fetch", "celo2", "--sha256", digest])
    out = capsys.readouterr().out
    assert "MIT licence" in out
    assert f"1,833 bytes, sha256 {digest}" in out
    assert out.splitlines()[-1] == str(PUBLISHED["celo2"].path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fetch", "celo2", "--sha256", "12"])
    assert "expected 64 hexadecimal digits, got 12" in capsys.readouterr().err


def test_velo_is_recorded_too(server: Server, tmp_path: pathlib.Path) -> None:
    """VeLO's file has exactly one size."""
    brought = tmp_path / "brought"
    brought.write_bytes(b"\x83")
    with pytest.raises(FetchError, match="expected 9,282,564 bytes, got 1"):
        fetch("velo", source_file=brought)
    brought.write_bytes(velo_container.encode(arrays_of(512, 256), "fake_initial_gen_id", 5620))
    found = fetch("velo", source_file=brought)
    assert found.path == google_weights_path()
    assert google_weights().sha256 == found.sha256
    kept = json.loads(found.path.with_name("params.json").read_text())
    assert (kept["name"], kept["file"], kept["sha256"]) == ("velo", str(brought), found.sha256)
    assert server.paths == []
