"""Masks credentials in text: ``postgresql://me:***@host``.

Boundary: text in, text out; reads the environment, keeps the passwords of known addresses.

Two ways find a credential. Its place gives it away: an address, a key such as ``password=``, an
Authorization header. Or its value is known: from the environment or from ``remember``. Known values
are masked anywhere, encoded ones too. A value that is short, a number or a well-known default
(``_ORDINARY``) is masked at its place only, because ordinary text holds it as well.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

MASK: Final = "***"

_KEY = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|token|credential|signature"
    r"|(?:api|access|account|private|secret)[_-]?key(?:[_-]?id)?)"
)
# Every pattern takes a time linear in the length of the text.
_PLACES: Final = (
    (re.compile(r"(?<=http://)[^\s/:?#@\"'<>]+@|(?<=https://)[^\s/:?#@\"'<>]+@"), f"{MASK}@"),
    (re.compile(r"(%3a%2f%2f[^\s&]{0,250}?%3a)[^\s&]{0,500}%40", re.I), rf"\1{MASK}%40"),
    # password=..., --token ..., "secret": "...", and a line of YAML
    (
        re.compile(rf"""({_KEY}["']?[ ]?=[ ]?)("[^"]*"|'[^']*'|[^\s&"'<>]+)""", re.I),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(--[\w-]{{0,40}}{_KEY}[ ]+)\S+", re.I), rf"\1{MASK}"),
    (
        re.compile(rf"""(["'][\w.-]{{0,60}}{_KEY}["']\s?:\s?)(["'])(?:\\.|(?!\2).)*\2""", re.I),
        rf"\1\2{MASK}\2",
    ),
    (re.compile(rf"^([ \t-]*[\w.-]{{0,60}}{_KEY}:[ \t]+)\S+[ \t]*$", re.I | re.M), rf"\1{MASK}"),
    # Authorization: Basic ...
    (
        re.compile(
            r"""(authorization["']?\s?[:=]\s?["']?)"""
            r"""((?:basic|bearer|digest|negotiate|token)\s)?[^\s"',}]+""",
            re.I,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(\bbearer )[\w.~+/-]{16,}=*", re.I), rf"\1{MASK}"),
)

_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|PGPASS$|SECRET|CREDENTIAL|(^|_)(TOKEN|PWD|PAT)(_|$)"
    r"|(API|ACCESS|PRIVATE)_?KEY|^AWS_",
    re.I,
)
_NO_SECRET_NAME = re.compile(
    r"(FILE|PATH|DIR|DIRECTORY|URL|URI|MODE|REGION|PROFILE|OUTPUT|PAGER|ENDPOINTS?|ATTEMPTS|TIMEOUT"
    r"|BUNDLE|ARN|NAME|PROCESS)$|^(OLD)?PWD$|^AWS_(EC2|EXECUTION|SDK|ENDPOINT|LAMBDA)",
    re.I,
)
# An address ends at a space, at a tag, and at a quote before a comma, colon or bracket.
_ADDRESSES = re.compile(r"""://(?:(?!["'`][,:;)\]}>]|</)\S)*""")
_USER = re.compile(r"://[^:/?#]*:")
_ADDRESS = re.compile(r"://(?P<user>[^:/?#@]*):(?P<password>.*)@", re.S)
_LOGIN = re.compile(r"://(?:[^\s:/?#@]*@|[^\s:/?#]*:\S*@)")
_ASSIGNED = re.compile(rf"{_KEY}=([^&\s]+)", re.I)
_SEPARATORS = re.compile(r"[@:/?#&=;,\[\]\s]+")
_NUMBER = re.compile(r"[\d.,:e+_-]{1,11}")
_ORDINARY: Final = frozenset(
    (
        *("account", "admin", "administrator", "changeme", "default", "example", "guest"),
        *("localhost", "mariadb", "mlflow", "mysql", "optuna", "passwd", "password", "postgres"),
        *("postgresql", "public", "secret", "server", "sqlite", "studies", "timetrial"),
        *("tracking", "user", "username"),
    )
)
_remembered: set[str] = set()


def masked(text: str) -> str:
    """The text with every credential replaced by ``***``; other text is unchanged."""
    text = _ADDRESSES.sub(_without_password, text)
    for pattern, shown in _PLACES:
        text = pattern.sub(shown, text)
    known = _pattern(_known())
    return text if known is None else known.sub(MASK, text)


def masked_tree(tree: Any) -> Any:
    """A tree of mappings, lists and texts with every text masked; other values are unchanged."""
    if isinstance(tree, str):
        return masked(tree)
    if isinstance(tree, Mapping):
        return {key: masked_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [masked_tree(value) for value in tree]
    return tree


def masked_file(data: bytes) -> bytes:
    """The content of a file with every text masked; anything but UTF-8 is unchanged."""
    try:
        return masked(data.decode()).encode()
    except UnicodeDecodeError:
        return data


def remember(address: str) -> str:
    """Keeps the credentials of an address, to mask them anywhere; returns the address."""
    _remembered.update(_values_in(address))
    return address


def without_login(address: str) -> str:
    """An address without user and password, for links."""
    return _LOGIN.sub("://", address)


def _without_password(address: re.Match[str]) -> str:
    """``://user:***@host``; the last @ counts, since passwords may hold @ : / ? and #."""
    text = address[0]
    user, end = _USER.search(text), text.rfind("@")
    if user is None or end < user.end():
        return text
    return f"{text[: user.end()]}{MASK}{text[end:]}"


def _known() -> frozenset[str]:
    """All forms of the known credentials: those remembered and those of the environment."""
    found = set(_remembered)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    for name, value in os.environ.items():
        if "://" in value:
            found |= _values_in(value)
        elif _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
            found |= _forms(value, user)
    return frozenset(found)


@functools.lru_cache(maxsize=256)
def _values_in(address: str) -> frozenset[str]:
    """All forms of the credentials in an address."""
    found: set[str] = set()
    for text in {address, unquote(address)}:
        for value in _ASSIGNED.findall(text):
            found |= _forms(value)
        match = _ADDRESS.search(text)
        if match is not None:
            found |= _forms(match["password"], unquote(match["user"]))
    return frozenset(found)


@functools.lru_cache(maxsize=256)
def _forms(value: str, user: str = "") -> frozenset[str]:
    """Patterns of a value as it may appear in text, and of its parts.

    An unencoded ``/`` or ``@`` splits an address at a wrong place; then libraries name a part of
    the password as the host. A part of letters only counts as a whole word.
    """
    forms: set[str] = set()
    for plain in {value, unquote(value)}:
        if _is_distinct(plain):
            shown = {plain, quote(plain, safe=""), quote(plain), quote_plus(plain)}
            shown |= {json.dumps(plain)[1:-1], repr(plain)[1:-1], html.escape(plain)}
            forms |= {re.escape(form) for form in shown}
        if plain:
            basic = base64.b64encode(f"{user}:{plain}".encode(errors="replace")).decode()
            forms.add(re.escape(basic))
        for part in _SEPARATORS.split(plain):
            if part != plain and _is_distinct(part):
                forms.add(rf"\b{part}\b" if part.isalpha() else re.escape(part))
    return frozenset(forms)


def _is_distinct(value: str) -> bool:
    """Whether a value is unlikely in ordinary text."""
    if value.lower() in _ORDINARY or _NUMBER.fullmatch(value):
        return False
    mixed = not (value.isalpha() or value.isdigit())
    return len(value) >= (4 if mixed else 6)


@functools.lru_cache(maxsize=8)
def _pattern(forms: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern of all forms, longest first; None without any. Hosts are shown in lower case."""
    return re.compile("|".join(sorted(forms, key=len, reverse=True)), re.I) if forms else None
