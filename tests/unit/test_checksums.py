"""Files that are written and read back have a checksum; files written by hand need none."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import ROWS

from timetrial.framework.checksums import (
    ChecksumError,
    check_beside,
    digest_line,
    digest_path,
    seal,
    unsealed,
)
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.yaml_files import read_yaml
from timetrial.tracking.read.times_csv import read_times
from timetrial.tracking.record.evaluations_file import decode, encode, evaluations_in
from timetrial.tracking.scores.fixed_targets import named_targets

TEXT = "# about\nlow: 1.5\nhigh: 25\n"


def test_a_sealed_text_is_read_back_with_its_line_numbers():
    assert seal(TEXT).startswith(b"# sha256: ")
    assert unsealed(seal(TEXT), "x") == b"\n" + TEXT.encode()
    assert unsealed(b"\xef\xbb\xbf" + seal(TEXT), "x") == b"\n" + TEXT.encode()
    assert unsealed(seal(TEXT).replace(b"\n", b"\r\n"), "x").endswith(b"high: 25\r\n")


def test_texts_without_a_seal_are_unchanged():
    for text in (
        b"",
        b"low: 1\n",
        b"# a comment\nlow: 1\n",
        b"# commit " + b"a" * 40 + b"\n",
        b"\n",
    ):
        assert unsealed(text, "x") == text


def test_every_changed_bit_is_noticed():
    sealed = seal(TEXT)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = unsealed(bytes(changed), "x")
        except ConfigError:
            continue
        # The mark itself: then it is no comment, or another one; the numbers are as written.
        assert bit // 8 < 10
        assert found.endswith(TEXT.encode())


def test_own_edits_are_accepted_without_the_line(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(seal(TEXT).replace(b"25", b"26"))
    with pytest.raises(ConfigError, match=r"x\.yaml: the file was changed since it was written"):
        read_yaml(path)
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert read_yaml(path)["high"] == "26"


def test_errors_name_the_line_of_the_whole_file(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(seal("a: 1\na: 2\n"))
    with pytest.raises(ConfigError, match="line 3: key 'a' is given twice"):
        read_yaml(path)


def test_a_digest_beside_a_file(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("workload,target\nogbg,0.28\n")
    check_beside(path, path.read_bytes())
    digest_path(path).write_bytes(digest_line(path.name, path.read_bytes()))
    assert dict(next(iter(named_targets(str(path)).values()))) == {"ogbg": 0.28}
    path.write_text("workload,target\nogbg,0.29\n")
    with pytest.raises(ChecksumError, match=r"t\.csv: the file has changed"):
        named_targets(str(path))


def test_tables_may_have_either(tmp_path: Path):
    text = "optimizer,workload,value\nadam,ogbg,3\nadam,ogbg,x\n"
    path = tmp_path / "times.csv"
    for content, line in ((text.encode(), 3), (seal(text), 4)):
        path.write_bytes(content)
        rows, problems = read_times(path)
        assert rows["value"].tolist() == [3.0]
        assert [problem.run for problem in problems] == [f"line {line}"]
    path.write_bytes(seal(text).replace(b",3", b",4"))
    with pytest.raises(UserError, match="changed since it was written"):
        read_times(path)


def test_recorded_evaluations_are_checked_and_those_of_0_2_still_read():
    evaluations = evaluations_in(ROWS)
    text = encode(evaluations)
    assert decode(text) == evaluations
    assert decode(text[text.index("[") : -1]) == evaluations  # as version 0.2 wrote them
    for i, character in enumerate(text):
        with pytest.raises(ValueError, match=r".+"):
            decode(text[:i] + ("1" if character != "1" else "2") + text[i + 1 :])
