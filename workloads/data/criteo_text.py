"""Rows of Criteo's click logs: tab-separated text to integers.

Pure: bytes in, arrays out.

A line has a label (0 or 1), 13 integers and 26 categories of 8 hexadecimal digits. Integers and
categories may be empty. As in AlgoPerf (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179; its ``criteo1tb`` input pipeline), an empty
category or ``-1`` counts as ``00000000``, an empty integer as 0, and a category becomes the
FarmHash of its text and column, modulo the vocabulary of the column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from timetrial.workloads.data.farmhash import fingerprint

VOCABULARIES: Final = (
    *(39884407, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532952, 2953546, 403346, 10),
    *(2208, 11938, 155, 4, 976, 14, 39979772, 25641295, 39664985, 585935, 12972, 108, 36),
)
"""Buckets of the 26 categories, from AlgoPerf's ``criteo1tb`` input pipeline."""

INTEGERS: Final = 13
"""Number of integer columns."""

COLUMNS: Final = 1 + INTEGERS + len(VOCABULARIES)
"""Columns of a line: label, integers, categories."""

Report = Callable[[int, str], None]
"""Takes the 1-based number of a bad line and the rule that it breaks."""

_PAD: Final = 16  # bytes before and after the text, so that words around a field exist
_ONES: Final = np.uint64(0x0101010101010101)
_ZEROS: Final = np.uint64(0x3030303030303030)  # "00000000"
_HIGH: Final = np.uint64(0xF0F0F0F0F0F0F0F0)
_EIGHT: Final = np.uint64(8)
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


def parse(text: bytes, first_line: int, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Parses whole lines; bad lines are reported and left out.

    Args:
        text: lines, each ended by a newline.
        first_line: 1-based number of the first line.
        report: takes bad lines, in order.

    Returns:
        Rows (n, 40) int32 (label, 13 integers, 26 buckets), and their line numbers (n,).
    """
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((data == 9) | (data == 10))
    newlines = ends[data[ends] == 10]
    lines = first_line + np.arange(len(newlines))
    first = np.concatenate([[0], newlines + 1])[: len(newlines)]
    fields = np.diff(np.searchsorted(ends, newlines, side="right"), prepend=0)
    rules: dict[int, str] = {}
    whole = fields == COLUMNS
    if not whole.all():
        for row in np.flatnonzero(~whole):
            rules[int(lines[row])] = f"expected {COLUMNS} fields, found {fields[row]}"
        ends, lines, first = ends[np.repeat(whole, fields)], lines[whole], first[whole]
    ends = np.ascontiguousarray(ends.reshape(-1, COLUMNS).T)
    starts = np.concatenate([first[None], ends[:-1] + 1])
    words = _words(data)
    rows = np.empty((COLUMNS, len(lines)), np.int32)
    good = np.ones(len(lines), bool)
    for column in range(COLUMNS):
        rows[column], bad = _column(column, data, words, starts[column], ends[column])
        for row in np.flatnonzero(bad & good):
            found = bytes(data[starts[column, row] : ends[column, row]])
            rule = _RULES[_kind(column)]
            rules[int(lines[row])] = f"field {column + 1}: expected {rule}, found {found!r}"
        good &= ~bad
    for line in sorted(rules):
        report(line, rules[line])
    return np.ascontiguousarray(rows.T[good]), lines[good]


_RULES: Final = {
    "label": "the label 0 or 1",
    "integer": "an integer of 32 bits or nothing",
    "category": "8 lower-case hexadecimal digits or nothing",
}


def _kind(column: int) -> str:
    if column == 0:
        return "label"
    return "integer" if column <= INTEGERS else "category"


def _column(
    column: int, data: np.ndarray, words: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and badness of one column, from the positions of its fields."""
    kind = _kind(column)
    if kind == "label":
        label = data[starts] - np.uint8(48)
        return label, (label > 1) | (ends - starts != 1)
    if kind == "integer":
        return _integers(data, words, starts, ends)
    return _buckets(column - 1 - INTEGERS, words, starts, ends)


def _words(data: np.ndarray) -> np.ndarray:
    """The padded text as aligned little-endian words of 8 bytes, uint64."""
    size = -(-(len(data) + 2 * _PAD) // 8) * 8
    padded = np.zeros(size, np.uint8)
    padded[_PAD : _PAD + len(data)] = data
    return padded.view("<u8").astype(np.uint64, copy=False)


def _eight_bytes(words: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The 8 bytes from each position of the text, as one little-endian number."""
    positions = positions + _PAD
    index = positions >> 3
    shift = ((positions & 7) << 3).astype(np.uint64)
    high = (words[index + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    found: np.ndarray = (words[index] >> shift) | high
    return found


_DIGITS: Final = (
    (0x0F0F0F0F0F0F0F0F, 2561, 8),
    (0x00FF00FF00FF00FF, 6553601, 16),
    (0x0000FFFF0000FFFF, 42949672960001, 32),
)  # digits to pairs, fours and eight


def _integers(
    data: np.ndarray, words: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decimal integers with an optional sign; empty fields are 0.

    Eight digits at a time (Daniel Lemire,
    "Quickly parsing eight digits", 2018, https://lemire.me/blog/2018/10/03/quickly-parsing-eight-digits/).
    """
    negative = (data[starts] == 45) & (ends > starts)
    digits = ends - starts - negative
    long = digits > 8
    # Characters of other fields in front; a shift by 64 bits is undefined, two by 32 are not.
    half = (np.uint64(4)) * (_EIGHT - np.minimum(digits, 8).astype(np.uint64))
    keep = (_ALL << half) << half
    text = (_eight_bytes(words, ends - 8) & keep) | (_ZEROS & ~keep)
    bad = ((text & _HIGH) != _ZEROS) | (((text + np.uint64(6) * _ONES) & _HIGH) != _ZEROS)
    bad |= negative & (digits == 0)
    for mask, factor, shift in _DIGITS:
        text = ((text & np.uint64(mask)) * np.uint64(factor)) >> np.uint64(shift)
    values = text.astype(np.int64)
    values = np.where(negative, -values, values)
    for row in np.flatnonzero(long):  # rare
        field = bytes(data[starts[row] : ends[row]])
        bad[row] = not field.lstrip(b"-").isdigit() or field.count(b"-") != int(negative[row])
        value = 0 if bad[row] else int(field)
        bad[row] |= not -(2**31) <= value < 2**31
        values[row] = 0 if bad[row] else value
    return values.astype(np.int32), bad


def _buckets(
    column: int, words: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of one category, column 0 to 25."""
    lengths = ends - starts
    field = _eight_bytes(words, starts)
    minus_one = (lengths == 2) & ((field & np.uint64(0xFFFF)) == int.from_bytes(b"-1", "little"))
    missing = (lengths == 0) | minus_one
    field[missing] = _ZEROS
    letter = (field >> np.uint64(6)) & _ONES  # 1 in each byte from "@" on
    value = field ^ (_ZEROS + letter * np.uint64(0x30))
    # Digits leave 0 to 9, letters 1 to 6; other characters leave a high bit, or a carry below.
    over = (value | (value + np.uint64(6) * _ONES + letter * np.uint64(3))) & _HIGH
    zero_letter = ((value & ~_HIGH) + letter * np.uint64(15)) & (letter << np.uint64(4))
    bad = (over != 0) | (zero_letter != letter << np.uint64(4)) | ((lengths != 8) & ~missing)
    hashes = fingerprint(field, column) % np.uint64(VOCABULARIES[column])
    return hashes.astype(np.int32), bad
