"""`python -m hxmlops_sharing token`: tokens made, shown and taken back; none is ever printed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hxmlops_sharing.__main__ import main
from hxmlops_sharing.tokens import token_digest

type Printed = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def create(folder: Path, *more: str, out: str = "vendor.token") -> int:
    fixed = ["--tokens", str(folder / "server.json"), "--out", str(folder / out), "--client", "vendor"]
    return main(["token", "create", *fixed, *(more or ("--scope", "read", "--days", "30"))])


def grants(folder: Path) -> list[dict[str, object]]:
    document: list[dict[str, object]] = json.loads((folder / "server.json").read_text())
    return document


def test_create_writes_token_and_digest_and_prints_neither(folder: Path, capsys: Printed) -> None:
    more = ("--scope", "write", "--scope", "read", "--artifact", "churn*", "--artifact", "a", "--days", "30")
    assert create(folder, *more) == 0
    token = (folder / "vendor.token").read_text().strip()
    (grant,) = grants(folder)
    expires = datetime.fromisoformat(str(grant.pop("expires_at")))
    assert 29 <= (expires - datetime.now(UTC)).days <= 30
    assert grant == {
        "sha256": token_digest(token.encode()),
        "client": "vendor",
        "scopes": ["read", "write"],
        "artifacts": ["a", "churn*"],
    }
    printed = capsys.readouterr()
    assert printed.out == f"created: the token of vendor in {folder / 'vendor.token'}\n"
    assert token not in printed.out + printed.err
    assert token not in (folder / "server.json").read_text()


def test_files_are_private(folder: Path) -> None:
    create(folder)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.glob("*"))}
    assert modes.pop("tokens") == 0o700
    assert {"server.json", "vendor.token"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_create_again_keeps_a_valid_token(folder: Path, capsys: Printed) -> None:
    create(folder)
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    create(folder)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before
    assert capsys.readouterr().out.splitlines()[1] == f"kept: the token of vendor in {folder / 'vendor.token'}"


def test_create_replaces_a_token_of_other_scopes_or_expired_or_unknown(folder: Path) -> None:
    create(folder)
    seen = {(folder / "vendor.token").read_text()}
    create(folder, "--scope", "write", "--days", "30")
    seen.add((folder / "vendor.token").read_text())
    (grant,) = grants(folder)
    assert grant["scopes"] == ["write"]
    (folder / "server.json").write_text(json.dumps([grant | {"expires_at": "2026-01-01T00:00:00Z"}]))
    create(folder, "--scope", "write", "--days", "30")
    seen.add((folder / "vendor.token").read_text())
    (folder / "vendor.token").write_text("unknown")
    create(folder, "--scope", "write", "--days", "30")
    seen.add((folder / "vendor.token").read_text())
    assert len(seen) == 4
    assert len(grants(folder)) == 2  # the unknown one's predecessor holds until it expires


def test_list_and_revoke(folder: Path, capsys: Printed) -> None:
    create(folder)
    create(folder, out="second.token")
    main(["token", "list", "--tokens", str(folder / "server.json")])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0].split() == ["CLIENT", "SCOPES", "ARTIFACTS", "EXPIRES"]
    assert [line.split()[:3] for line in lines[1:]] == [["vendor", "read", "*"]] * 2
    main(["token", "revoke", "--tokens", str(folder / "server.json"), "--client", "vendor"])
    assert capsys.readouterr().out == "revoked: 2 of vendor\n"
    assert grants(folder) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory: make it with `python -m hxmlops_sharing token create`"),
        ("{", "is not a list of grants {sha256, client, scopes, artifacts, expires_at}: restore it, "),
    ],
)
def test_a_bad_tokens_file_is_said_in_one_line(
    tmp_path: Path, content: str | None, message: str, capsys: Printed
) -> None:
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_text(content)
    assert main(["token", "list", "--tokens", str(path)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_days_are_limited(folder: Path, capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        create(folder, "--scope", "read", "--days", "0")
    assert "from 1 to 3650" in capsys.readouterr().err
