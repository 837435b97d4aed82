from __future__ import annotations

import numpy as np
import pytest
from raw_files import criteo_lines

from timetrial.workloads.data import criteo_text
from timetrial.workloads.data.farmhash import fingerprint


def number(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), "<u8").astype(np.uint64)


@pytest.mark.parametrize(
    ("field", "column", "hashed"),
    [
        ("68fd1e64", 0, 9066014191666271819),
        ("80e26c9b", 1, 421369434436376517),
        ("00000000", 25, 996838853614153993),
    ],
)
def test_fingerprints_are_those_of_tensorflow(field: str, column: int, hashed: int):
    """Known values of tf.strings.to_hash_bucket_fast with 2^63 - 1 buckets."""
    (found,) = fingerprint(number(field), column)
    assert int(found) % (2**63 - 1) == hashed


def rotated(x: int, bits: int) -> int:
    return (x >> bits | x << (64 - bits)) % 2**64


def plain_fingerprint(text: bytes) -> int:
    """FarmHash's HashLen0to16 for 8 to 16 bytes, with Python's integers."""
    k2 = 0x9AE16A3B2F90404F
    mul = (k2 + 2 * len(text)) % 2**64
    a = (int.from_bytes(text[:8], "little") + k2) % 2**64
    b = int.from_bytes(text[-8:], "little")
    c = (rotated(b, 37) * mul + a) % 2**64
    d = (rotated(a, 25) + b) * mul % 2**64
    a = (c ^ d) * mul % 2**64
    a ^= a >> 47
    b = (d ^ a) * mul % 2**64
    b ^= b >> 47
    return b * mul % 2**64


def plain_row(line: str) -> list[int]:
    label, *fields = line.rstrip("\n").split("\t")
    integers = [int(field or 0) for field in fields[:13]]
    buckets = [
        plain_fingerprint(f"{'00000000' if field in ('', '-1') else field}{column}".encode()) % size
        for column, (field, size) in enumerate(
            zip(fields[13:], criteo_text.VOCABULARIES, strict=True)
        )
    ]
    return [int(label), *integers, *buckets]


def parsed(
    lines: list[str], first: int = 1
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    bad: list[tuple[int, str]] = []
    rows, numbers = criteo_text.parse(
        "".join(lines).encode(), first, lambda line, rule: bad.append((line, rule))
    )
    assert rows.dtype == np.int32
    return rows, numbers, bad


def test_rows_are_those_of_a_plain_parser():
    lines = criteo_lines(300, seed=1)
    rows, numbers, bad = parsed(lines, first=11)
    assert not bad
    np.testing.assert_array_equal(numbers, np.arange(11, 311))
    np.testing.assert_array_equal(rows, [plain_row(line) for line in lines])


def test_the_same_line_gives_the_same_row_at_every_place():
    """Fields lie at all 8 alignments of the words that are read."""
    (line,) = criteo_lines(1, seed=2)
    rows = parsed([line] * 9)[0]
    assert len({len(line) * i % 8 for i in range(9)}) > 1 or len(line) % 8 == 0
    np.testing.assert_array_equal(rows, [plain_row(line)] * 9)


def with_field(column: int, text: str) -> str:
    (line,) = criteo_lines(1, seed=3)
    fields = line.rstrip("\n").split("\t")
    fields[column] = text
    return "\t".join(fields) + "\n"


@pytest.mark.parametrize(
    "text", ["0", "7", "-1", "-2", "12345678", "123456789", "-2147483648", "2147483647", "007", ""]
)
def test_integers_of_every_length(text: str):
    rows, _, bad = parsed([with_field(4, text)])
    assert not bad
    assert rows[0, 4] == int(text or 0)


@pytest.mark.parametrize(
    ("column", "text", "rule"),
    [
        (0, "2", "field 1: expected the label 0 or 1, found b'2'"),
        (0, "", "field 1: expected the label 0 or 1, found b''"),
        (0, "01", "field 1: expected the label 0 or 1, found b'01'"),
        (1, "x", "field 2: expected an integer of 32 bits or nothing, found b'x'"),
        (3, "1.5", "field 4: expected an integer of 32 bits or nothing, found b'1.5'"),
        (3, "-", "field 4: expected an integer of 32 bits or nothing, found b'-'"),
        (3, "1-", "field 4: expected an integer of 32 bits or nothing, found b'1-'"),
        (13, ":", "field 14: expected an integer of 32 bits or nothing, found b':'"),
        (13, "2147483648", "field 14: expected an integer of 32 bits or nothing"),
        (13, "--123456789", "field 14: expected an integer of 32 bits or nothing"),
        (14, "68fd1e6", "field 15: expected 8 lower-case hexadecimal digits or nothing"),
        (14, "68fd1e645", "field 15: expected 8 lower-case hexadecimal digits or nothing"),
        (14, "68FD1E64", "field 15: expected 8 lower-case hexadecimal digits or nothing"),
        (39, "68fd1eg4", "field 40: expected 8 lower-case hexadecimal digits or nothing"),
        (39, "68fd1e`4", "field 40: expected 8 lower-case hexadecimal digits or nothing"),
        (39, "68fd1e:4", "field 40: expected 8 lower-case hexadecimal digits or nothing"),
        (39, "68fd1e64\r", "field 40: expected 8 lower-case hexadecimal digits or nothing"),
        (39, "a\tb", "expected 40 fields, found 41"),
    ],
)
def test_bad_lines_are_named_and_left_out(column: int, text: str, rule: str):
    good = criteo_lines(4, seed=4)
    rows, numbers, bad = parsed([*good[:2], with_field(column, text), *good[2:]], first=100)
    (found,) = bad
    assert found[0] == 102
    assert found[1].startswith(rule)
    np.testing.assert_array_equal(numbers, [100, 101, 103, 104])
    np.testing.assert_array_equal(rows, [plain_row(line) for line in good])


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_a_category_is_judged(byte: int):
    if byte in b"\t\n":
        return
    before, after = with_field(20, "68fd1e64").split("68fd1e64")
    text = before.encode() + b"68f" + bytes([byte]) + b"1e64" + after.encode()
    bad: list[int] = []
    criteo_text.parse(text, 1, lambda line, rule: bad.append(line))
    assert bad == ([] if byte in b"0123456789abcdef" else [1])


def test_bad_lines_are_reported_in_order():
    lines = [with_field(0, "9"), "short\n", with_field(2, "?"), *criteo_lines(1, seed=5)]
    rows, _, bad = parsed(lines)
    assert [line for line, _ in bad] == [1, 2, 3]
    assert len(rows) == 1


def test_minus_one_is_a_missing_category():
    rows = parsed([with_field(30, "-1"), with_field(30, "")])[0]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_no_text_has_no_rows():
    assert parsed([])[0].shape == (0, 40)
