"""Logs are JSON lines in which no secret is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.logs import HIDDEN, hide_secrets, scrub

TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=8, max_size=60)
BASE64 = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", min_size=8, max_size=60)
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"\\<>&"), min_size=8)
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
PLACES: list[tuple[str, st.SearchStrategy[str]]] = [
    ("Authorization: Bearer {}", TOKENS),
    ("header bearer {} was refused", TOKENS),
    ("Basic {}==", BASE64),
    ("postgresql://user:{}@db.example:5432/records", PASSWORDS),
    ("cannot connect to s3://key:{}@bucket", PASSWORDS),
    ("password={} host=db", PASSWORDS),
    ('{{"database_password": "{}"}}', PASSWORDS),
    ("{{'s3_secret_key': '{}'}}", PASSWORDS),
    ("?X-Amz-Credential=a%2F1&X-Amz-Signature={}&X-Amz-Date=1", TOKENS),
    ("?X-Amz-Security-Token={}&x=1", TOKENS),
    ("AWS_SECRET_ACCESS_KEY={}", BASE64),
    ("Cookie: hxmlops-session={}", TOKENS),
    ("Set-Cookie: {}; HttpOnly", TOKENS),
    ("api-key: {}", TOKENS),
    ("client_secret={}", TOKENS),
    ("eyJhbGciOiJFUzI1NiJ9.{}.c2ln", TOKENS),
    ("AKIA{}", st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=16)),
    ("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", BASE64),
    ("-----BEGIN EC PRIVATE KEY-----\n{}", BASE64),
    ("AGE-SECRET-KEY-1{}", st.text("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", min_size=20)),
    ("ghp_{}", st.text("abcdefABCDEF0123456789", min_size=36, max_size=36)),
]


@pytest.mark.parametrize(("place", "secrets"), PLACES, ids=[place[:24] for place, _ in PLACES])
def test_a_secret_does_not_get_out_wherever_it_is(place: str, secrets: st.SearchStrategy[str]) -> None:
    @settings(deadline=None, max_examples=60)
    @given(secret=secrets, before=PLAIN, after=PLAIN)
    def check(secret: str, before: str, after: str) -> None:
        said = place.format(secret)
        text = f"{before} {said} {after}"
        event = {
            "event": text,
            "error": [text, {"inner": text}],
            "raw": text.encode(),
            "object": Exception(text),
            "repr": Path(text),
        }
        line = json.dumps(hide_secrets(None, "info", dict(event)), ensure_ascii=False)
        if secret not in place + before + after + HIDDEN:
            assert secret not in line

    check()


@given(secret=st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=43, max_size=43))
def test_a_token_of_ours_does_not_get_out_alone(secret: str) -> None:
    if any(map(str.isdigit, secret)) and any(map(str.isupper, secret)) and any(map(str.islower, secret)):
        assert secret not in scrub(f"unknown {secret} given")


@pytest.mark.parametrize("name", ["token", "Authorization", "database_password", "s3_secret_key", "set-cookie", "jwt"])
def test_a_field_named_like_a_secret_is_hidden(name: str) -> None:
    for value in ("x", ["x"], {"a": "x"}, 7, None):
        assert hide_secrets(None, "info", {name: value}) == {name: HIDDEN}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no model has the digest sha256:" + "ab12" * 16,
        "/api/v1/artifacts/sha256:" + "ab12" * 16,
        "/api/v1/model/by_id/12",
        "2026-11-25T19:36:00.123456Z",
        "model refused: signature: not of an allowed key",
        "a bearer token is required",
        "database records.sqlite: no such file: name an SQLite file",
        "https://proxy.example/models/api/v1/model?version=1",
        "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub(text) == text
    assert hide_secrets(None, "info", {"event": text, "count": 3, "ok": True}) == {
        "event": text,
        "count": 3,
        "ok": True,
    }


def test_every_line_is_json_whoever_logs() -> None:
    program = (
        "import logging, structlog; from hxmlops_sharing.logs import configure_logs; configure_logs()\n"
        "structlog.get_logger().info('served', path='/x', url='postgresql://u:pa55word@h/d')\n"
        "logging.getLogger('asyncpg').warning('no %s', 'postgresql://u:pa55word@h/d')\n"
        "try: raise ValueError('password=pa55word')\n"
        "except ValueError: structlog.get_logger().error('failed', exc_info=True); logging.exception('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "error"]
    assert all("timestamp" in line for line in lines)
    assert "ValueError" in lines[2]["exception"]
    assert "pa55word" not in done.stderr
    assert done.stdout == ""
