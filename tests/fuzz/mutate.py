"""Damages files: bits, bytes, lines, numbers, types, keys, nesting.

Pure: bytes and a generator of random numbers in, bytes out.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

HUGE = (
    *(b"1e400", b"-1e400", b"9" * 5000, b"99999999999999", b"18446744073709551616", b"-1", b"0"),
    *(b"1e-400", b"nan", b"inf", b"-inf", b".inf", b"NaN", b"Infinity", b"0x10", b"1_000", b"007"),
    *(b"1.5", b"2147483648", b"1e3", b"", b"4294967295", b"-0.0", b"1" + b"0" * 400),
)
OTHERS = (
    *(b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"0", b"-1", b"1e999", b"[[]]", b'{"a":1}'),
    *(b'"../../x"', b'"/etc/passwd"', b'"${oc.env:HOME}"', b'"\\u0000"', b'"\\ud800"', b"[1,2,3]"),
)
INSERTS = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n\r\n", b",", b'"', b"'", b"{"),
    *(
        b"}",
        b"[",
        b"]",
        b": ",
        b"# ",
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"\xed\xa0\x80",
    ),
    *(b"../" * 8, b"${oc.env:HOME}", b"\t", b"\x85", b"\xe2\x80\xa8", b"- ", b"? ", b"<<: ", b"%"),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_VALUE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\d.e+-]*|true|false|null')
_KEY = re.compile(rb'"?([A-Za-z_][\w./-]*)"?(\s*[:=])')


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def behead(data: bytes, rng: random.Random) -> bytes:
    return data[_place(data, rng) :]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 4, 30, 300)) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    block = data[start : start + rng.choice((1, 10, 100, 1000))]
    return data[:start] + block * rng.choice((2, 3, 50)) + data[start + len(block) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted((_place(data, rng), _place(data, rng)))
    length = rng.choice((4, 40, 400))
    piece = data[second : second + length]
    return data[:first] + piece + data[first + len(piece) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + rng.choice(INSERTS) + data[start:]


def noise(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + rng.randbytes(rng.choice((1, 8, 64))) + data[start:]


def _replace_one(pattern: re.Pattern[bytes], data: bytes, rng: random.Random, text: bytes) -> bytes:
    found = list(pattern.finditer(data[: 1 << 20]))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + text + data[match.end() :]


def number(data: bytes, rng: random.Random) -> bytes:
    return _replace_one(_NUMBER, data, rng, rng.choice(HUGE))


def digit(data: bytes, rng: random.Random) -> bytes:
    return _replace_one(re.compile(rb"\d"), data, rng, b"%d" % rng.randrange(10))


def other_type(data: bytes, rng: random.Random) -> bytes:
    return _replace_one(_VALUE, data, rng, rng.choice(OTHERS))


def rename_key(data: bytes, rng: random.Random) -> bytes:
    return _replace_one(_KEY, data, rng, rng.choice((b'"x":', b"x:", b"", b'"":', b"a.b=")))


def lines(data: bytes, rng: random.Random) -> bytes:
    """Deletes, repeats, swaps or empties lines."""
    parts = data.splitlines(keepends=True)
    if not parts:
        return data
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(5)
    if kind == 0:
        del parts[i]
    elif kind == 1:
        parts.insert(j, parts[i])
    elif kind == 2:
        parts[i], parts[j] = parts[j], parts[i]
    elif kind == 3:
        parts[i] = b"\n"
    else:
        parts[i] = parts[i][:10_000] * rng.choice((2, 500))
    return b"".join(parts)


def nest(data: bytes, rng: random.Random) -> bytes:
    """Puts deep nesting in the place of a value."""
    depth = rng.choice((30, 1000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"(", b")")))
    text = opening * depth + b"1" + closing * rng.choice((0, depth))
    return _replace_one(_VALUE, data, rng, text)


def columns(data: bytes, rng: random.Random) -> bytes:
    """Makes the first line very long."""
    head, newline, rest = data.partition(b"\n")
    cell = rng.choice((head.rpartition(b",")[2], b"a", b""))
    return head + (b"," + cell[:40]) * rng.choice((3, 100_000)) + newline + rest


def tree(data: bytes, rng: random.Random) -> bytes:
    """Changes one node of a JSON document, or of one line of JSON."""
    rows = data.split(b"\n")
    i = rng.randrange(len(rows))
    for text, put in ((data, None), (rows[i], i)):
        try:
            changed = json.dumps(_changed(json.loads(text), rng)).encode()
        except (ValueError, RecursionError):
            continue
        if put is None:
            return changed
        return b"\n".join([*rows[:i], changed, *rows[i + 1 :]])
    return data


ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, float("inf"), float("nan"), "", "x"),
    *(
        [],
        {},
        [[]],
        {"": None},
        "../../x",
        "/etc/passwd",
        "\0",
        "\ud800",
        "9" * 5000,
        "nan",
        [None],
    ),
)


def _changed(node: Any, rng: random.Random) -> Any:
    if isinstance(node, dict) and node and rng.random() < 0.85:
        key = rng.choice(list(node))
        kind = rng.random()
        if kind < 0.1:
            return {k: v for k, v in node.items() if k != key}
        if kind < 0.2:
            return {**node, rng.choice(("x", "", "../x", key + "x")): node[key]}
        return {**node, key: _changed(node[key], rng)}
    if isinstance(node, list) and node and rng.random() < 0.85:
        i = rng.randrange(len(node))
        kind = rng.random()
        if kind < 0.1:
            return node[:i] + node[i + 1 :]
        if kind < 0.2:
            return node + [node[i]] * rng.choice((1, 1000))
        return [*node[:i], _changed(node[i], rng), *node[i + 1 :]]
    if isinstance(node, (int, float)) and rng.random() < 0.3:
        return node + rng.choice((1, -1, 0.5))
    return rng.choice(ODD)


def nothing(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", bytes(40), b"\n", b"[]", b"{}", b"null", b"1", b'"x"', b"\xff" * 99))


MUTATORS: tuple[Mutator, ...] = (
    *(flip, flip, truncate, behead, cut_out, repeat, splice, insert, noise, number, number, digit),
    *(other_type, other_type, rename_key, lines, lines, nest, columns, tree, tree, tree),
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data after one to three changes."""
    if rng.random() < 0.02:
        return nothing(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATORS)(data, rng)
    return data[: 1 << 23]
