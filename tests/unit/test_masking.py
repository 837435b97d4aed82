"""Masking: no credential survives, ordinary text is unchanged."""

from __future__ import annotations

import base64
import io
import json
import string
import time
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from timetrial.bench.terminal import MaskedStream
from timetrial.framework import secrets
from timetrial.framework.errors import UserError
from timetrial.framework.paths import PathError, expanded_uri
from timetrial.framework.secrets import masked, masked_file, masked_tree, remember, without_login

MARK = "Zq7vWx"
ODD = "@:/?#%&=+,;!$()[]~^|\\'\"<>`"
PASSWORDS = st.builds(
    lambda before, after: before + MARK + after,
    st.text(string.ascii_letters + string.digits + ODD, max_size=8),
    st.text(string.ascii_letters + string.digits + ODD, max_size=8),
)
SCHEMES = st.sampled_from(
    ["http", "https", "postgresql", "postgres", "mysql", "postgresql+psycopg", "sqlite", "redis"]
)
AROUND = st.sampled_from(["", " ", "got '", 'x="', "\n", "(", "see: ", "<a href='"])


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())


@given(SCHEMES, PASSWORDS, AROUND, AROUND)
@example("http", f"p@{MARK}/w#d?x:y", "", "")
@example("https", f"{MARK}@", "got '", "'")
def test_no_password_of_an_address_survives(scheme: str, password: str, before: str, after: str):
    """Unknown to the program: what ends a text (a quote and a comma, a tag) must be encoded."""
    for end in ("',", '",', "`,", "</", *(f"{q}{e}" for q in "'\"`" for e in ":;)]}>")):
        assume(end not in f"{password}@")
    text = f"{before}{scheme}://me:{password}@host:5000/db{after}"
    assert MARK not in masked(text)
    assert masked(text).startswith(f"{before}{scheme}://me:***")
    assert masked(masked(text)) == masked(text)


@given(PASSWORDS)
@example(f"a b{MARK}\tc")
@example(f"\u00e4\u00df{MARK}")
def test_no_known_password_survives_in_any_form(password: str):
    secrets._remembered.clear()
    remember(f"https://me:{password}@host/x")
    basic = base64.b64encode(f"me:{password}".encode()).decode()
    for form in (password, quote(password), quote(password, safe=""), json.dumps(password)):
        assert MARK.lower() not in masked(f"{form} or x{form}y or {form.lower()}").lower()
    assert basic not in masked(f"sent {basic}")
    for part in secrets._SEPARATORS.split(password):  # as a library names a wrong host
        assert MARK.lower() not in masked(f"cannot resolve '{part.lower()}'")


@given(PASSWORDS)
def test_percent_encoded_passwords_of_settings_are_known_decoded(password: str):
    secrets._remembered.clear()
    expanded_uri(f"postgresql://me:{quote(password, safe='')}@host/x")
    assert MARK not in masked(f"login of me with {password} failed")


@pytest.mark.parametrize(
    "text",
    [
        f"password={MARK}",
        f"host=h user=me password='{MARK} x' port=1",
        f"postgresql://host/db?user=me&password={MARK}&sslmode=require",
        f"?sslpassword={MARK}#x",
        f"api_key={MARK}",
        f"AWS_SECRET_ACCESS_KEY={MARK}",
        f"MLFLOW_TRACKING_TOKEN={MARK} timetrial bench",
        f'{{"token": "{MARK}"}}',
        f"{{'mlflow.password': '{MARK}'}}",
        f"  client_secret: {MARK}",
        f"Authorization: Basic {MARK}",
        f"{{'Authorization': 'Bearer {MARK}'}}",
        f"curl -H 'authorization: token {MARK}'",
        f"Bearer {MARK}abcdefghijklm",
        f"tool --password {MARK} --user me",
        f"https://{MARK}@host/x",
        f"uri=http%3A%2F%2Fme%3A{MARK}%40host%2F",
        f"redis://:{MARK}@host",
    ],
)
def test_no_credential_survives_at_its_place(text: str):
    assert MARK not in masked(text)
    assert "***" in masked(text)


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MY_SECRET", "HF_TOKEN", "PGPASSWORD",
     "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "MLFLOW_TRACKING_URI"],
)  # fmt: skip
def test_values_of_the_environment_are_known(name: str, monkeypatch: pytest.MonkeyPatch):
    value = f"{MARK}/x y"
    address = f"http://me:{value}@host"
    monkeypatch.setenv(name, address if name.endswith("URI") else value)
    assert MARK not in masked(f"a {value} b {value.lower()} c {quote(value)}")


def test_the_basic_login_of_the_environment_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw")  # too short to be masked anywhere
    basic = base64.b64encode(b"me:pw").decode()
    assert masked(f"header {basic}") == "header ***"
    assert masked("pwd of the pwm") == "pwd of the pwm"


ORDINARY = [
    "expected a tokenizer, got a password file; tokens: 512, max_tokens=512",
    "http://127.0.0.1:5000/#/experiments/1/runs/0a1b?workflowType=machine_learning",
    "sqlite:////home/me/runs/mlflow.db and postgresql://USER@HOST:PORT/NAME",
    "https://arxiv.org/abs/2310.18191, write to a@b.org; time 12:30:45",
    '{"metrics": {"train/loss": 1.25e-3}, "step": 12345678901}',
    "C:\\x y://z\n  a: b\n- c: 'd', e=f",
    "git@github.com:a/b.git, pip install x@y",
    "the secret of the token is: none",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_unchanged(text: str):
    assert masked(text) == text


@given(st.text())
def test_text_without_a_place_for_credentials_is_unchanged(text: str):
    lower = text.lower()
    assume("://" not in text and "%3a" not in lower)
    words = ("pass", "pwd", "secret", "token", "credential", "key", "signature")
    assume(not any(word in lower for word in (*words, "authorization", "bearer")))
    assert masked(text) == text


def test_defaults_numbers_and_short_words_are_masked_at_their_place_only():
    for password in ("mlflow", "postgres", "12345", "0.25", "adam", "x"):
        text = f"postgresql://me:{password}@db/{password}"
        remember(text)
        assert masked(text) == f"postgresql://me:***@db/{password}"
        assert masked(f"of {password}, ") == f"of {password}, "


def test_trees_files_errors_and_streams_are_masked():
    text, shown = f"http://me:{MARK}@host", "http://me:***@host"
    assert masked_tree({"a": [text, 1, None], "b": {"c": text}}) == {
        "a": [shown, 1, None],
        "b": {"c": shown},
    }
    assert masked_file(f"<p>{text}</p><p>x@y".encode()) == f"<p>{shown}</p><p>x@y".encode()
    assert masked_file(b"\xff" + text.encode()) == b"\xff" + text.encode()
    assert str(UserError(f"got {text}")) == f"got {shown}"
    stream = io.StringIO()
    print(text, file=MaskedStream(stream))
    MaskedStream(stream).writelines([text, "\n"])
    assert stream.getvalue() == f"{shown}\n{shown}\n"
    assert without_login(f"{text}:5000/x") == "http://host:5000/x"
    assert without_login("http://host:5000/#/x") == "http://host:5000/#/x"


def test_the_old_name_of_postgresql_and_a_masked_password_are_refused():
    with pytest.raises(PathError, match=r"expected postgresql://.*got 'postgres://me:\*\*\*@h/x'"):
        expanded_uri(f"postgres://me:{MARK}@h/x")
    with pytest.raises(PathError, match="type it again"):
        expanded_uri("http://me:***@host")


def test_long_texts_take_a_time_linear_in_their_length():
    for text in ("http://a:" * 10_000, "x" * 10**6, '"token_' * 50_000, "- " * 10**5, "%3a" * 9999):
        started = time.process_time()
        masked(text)
        assert time.process_time() - started < 5  # quadratic ones take a minute
