"""`python -m hxmlops_evidence`, as playbooks call it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence.__main__ import main
from hxmlops_evidence.digests import sha256_bytes


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Run the command: (exit code, its JSON, or what it says on stderr)."""

    def call(*arguments: object) -> tuple[int, Any]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert captured.err.count("\n") == (1 if code else 0)
        return code, captured.err.strip() if code else json.loads(captured.out)

    return call


@pytest.fixture
def make(run: Callable[..., Any], tmp_path: Path) -> Callable[[], tuple[int, Any]]:
    """Make a vendor's keys and card.json."""
    keys = ("--folder", tmp_path / "keys", "--party", "vendor", "--domain", "software-vendor")
    return lambda: run("keys", "make", *keys, "--card", tmp_path / "card.json")


def test_keys_are_made_once(make: Callable[[], Any], tmp_path: Path) -> None:
    code, first = make()
    assert (code, first["changed"], first["name"]) == (0, True, "software-vendor")
    assert make() == (0, first | {"changed": False})
    assert json.loads((tmp_path / "card.json").read_bytes())["fingerprint"] == first["fingerprint"]


def test_a_card_is_imported_once_its_fingerprint_is_given(
    run: Callable[..., Any], make: Callable[[], Any], tmp_path: Path
) -> None:
    _, made = make()
    pin = ("card", "import", "--trust", tmp_path / "trust", "--card", tmp_path / "card.json", "--fingerprint")
    code, refusal = run(*pin, sha256_bytes(b"other"))
    assert (code, refusal.split(":")[0]) == (2, "fingerprint")
    assert run(*pin, made["fingerprint"]) == (0, {**made, "changed": True})
    assert run(*pin, made["fingerprint"]) == (0, {**made, "changed": False})


def test_a_card_is_shown_and_checked(run: Callable[..., Any], make: Callable[[], Any], tmp_path: Path) -> None:
    _, made = make()
    code, card = run("card", "show", tmp_path / "card.json")
    assert (code, card["fingerprint"]) == (0, made["fingerprint"])
    (tmp_path / "card.json").write_text(json.dumps(card | {"party": "other"}))
    code, problem = run("card", "show", tmp_path / "card.json")
    assert (code, problem) == (
        3,
        "card of software-vendor: its fingerprint is not that of its keys; ask for it again",
    )


def test_a_persons_key_is_made_once(run: Callable[..., Any], tmp_path: Path) -> None:
    make = ("person", "make", "--folder", tmp_path / "people", "--party", "operator", "--person", "ada")
    code, first = run(*make, "--card", tmp_path / "ada.json")
    assert (code, first["changed"], first["name"]) == (0, True, "ada")
    assert run(*make, "--card", tmp_path / "ada.json") == (0, first | {"changed": False})


def test_a_statement_is_verified(
    run: Callable[..., Any], world: Any, example: Callable[[str], Any], tmp_path: Path
) -> None:
    made = world.statement(
        "receipt", "mno-production", "mno-staging", sha256_bytes(b""), example("receipt")["body"], issued_at=None
    )
    (tmp_path / "receipt.json").write_text(json.dumps(world.sign(made, "mno-production")))
    verify = ("verify", tmp_path / "receipt.json", "--trust", world.folder / "trust", "--type", "receipt")
    code, statement = run(*verify, "--workflow", "churn", "--audience", "mno-staging")
    assert (code, statement["body"]) == (0, example("receipt")["body"])
    code, refusal = run(*verify, "--workflow", "roaming", "--audience", "mno-staging")
    assert (code, refusal) == (2, "workflow: receipt by mno-production is of workflow churn, not roaming")


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_file_that_is_missing_or_no_json_is_bad_input(
    run: Callable[..., Any], tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    code, problem = run("card", "show", tmp_path / "card.json")
    assert code == 3
    assert problem.startswith(f"{tmp_path / 'card.json'}: ")


def test_a_folder_that_cannot_be_written_is_one_line(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = ("--folder", tmp_path / "file" / "keys", "--card", tmp_path / "card.json")
    code, problem = run("keys", "make", *where, "--party", "vendor", "--domain", "software-vendor")
    assert (code, problem.endswith("Not a directory")) == (3, True)


def test_a_wrong_option_is_one_line_too() -> None:
    command = [sys.executable, "-m", "hxmlops_evidence", "keys", "make"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "the following arguments are required: --folder" in result.stderr
