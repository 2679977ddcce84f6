"""`python -m hxmlops_sharing token`: tokens made, shown and taken back; none is ever printed."""

import argparse
import json
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hxmlops_sharing.__main__ import main
from hxmlops_sharing.access_commands import said_size, size
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
    titles = ["CLIENT", "SCOPES", "ARTIFACTS", "PURPOSE", "RECIPIENT", "QUOTA", "A", "MINUTE", "EXPIRES"]
    assert lines[0].split() == titles
    assert [line.split()[:7] for line in lines[1:]] == [["vendor", "read", "*", "-", "-", "-", "-"]] * 2
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


def test_purpose_recipient_quota_and_rate(folder: Path, capsys: Printed) -> None:
    more = ("--purpose", "acceptance tests", "--recipient", "mno", "--quota", "500GiB", "--rate", "600")
    create(folder, "--scope", "annotate", "--days", "30", *more)
    (grant,) = grants(folder)
    assert {name: grant[name] for name in ("purpose", "recipient", "quota_bytes", "requests_per_minute")} == {
        "purpose": "acceptance tests",
        "recipient": "mno",
        "quota_bytes": 500 << 30,
        "requests_per_minute": 600,
    }
    create(folder, "--scope", "annotate", "--days", "30", *more)
    assert capsys.readouterr().out.splitlines()[1].startswith("kept:")
    main(["token", "list", "--tokens", str(folder / "server.json")])
    listed = capsys.readouterr().out
    assert "vendor  annotate  *          acceptance tests  mno        500GiB  600       20" in listed


def test_what_ends_soon_or_has_ended_is_marked(folder: Path, capsys: Printed) -> None:
    create(folder)
    (grant,) = grants(folder)
    ends = [datetime.now(UTC) + timedelta(days=days, hours=1) for days in (-1, 0, 5, 14, 90)]
    changed = [grant | {"client": f"c{n}", "expires_at": end.isoformat()} for n, end in enumerate(ends)]
    (folder / "server.json").write_text(json.dumps(changed))
    capsys.readouterr()
    main(["token", "list", "--tokens", str(folder / "server.json")])
    marks = [line.partition("+00:00")[2].strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert marks == ["EXPIRED", "SOON: 0 d left", "SOON: 5 d left", "", ""]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1048576", 1 << 20), ("500GiB", 500 << 30), ("20 MB", 20_000_000), ("1kB", 1000), ("3B", 3), ("8PiB", None),
     ("", None), ("0", None), ("-1", None), ("1.5GiB", None), ("1 gib", None), ("GiB", None),
     ("\N{ARABIC-INDIC DIGIT ONE}", None),
     ("7PiB", 7 << 50), ("9" * 19, None), ("9" * 5000, None), ("1e3", None)],
)  # fmt: skip
def test_sizes(text: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(argparse.ArgumentTypeError):
            size(text)
    else:
        assert size(text) == number
        assert size(said_size(number)) == number


@pytest.mark.parametrize("wrong", [("--quota", "lots"), ("--rate", "0"), ("--rate", "x"), ("--scope", "root")])
def test_what_is_no_number_or_scope_is_refused(folder: Path, wrong: tuple[str, str], capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        create(folder, "--scope", "read", "--days", "30", *wrong)
    assert f"argument {wrong[0]}" in capsys.readouterr().err
    assert not folder.exists()


def test_a_purpose_is_one_line(folder: Path, capsys: Printed) -> None:
    assert create(folder, "--scope", "read", "--days", "30", "--purpose", "a\nb") == 2
    printed = capsys.readouterr().err
    assert printed == "hxmlops_sharing: no token for 'vendor': texts should have printable characters only\n"


def test_the_installed_program_is_the_same(folder: Path) -> None:
    """As `[project.scripts]` of pyproject.toml names it."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["hxmlops-sharing"].partition(":")
    program = f"import sys, {module}; sys.exit({module}.{function}())"
    words = ["token", "list", "--tokens", str(folder / "none")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file or directory" in done.stderr


def test_days_are_limited(folder: Path, capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        create(folder, "--scope", "read", "--days", "0")
    assert "from 1 to 3650" in capsys.readouterr().err
