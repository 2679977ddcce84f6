"""Sequence numbers: issued once each, and an old statement is not accepted again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.sequences import check_sequence, next_sequence, record_sequence

LINE = "evidence/churn"


def statement(sequence: int, digest: str = "sha256:a") -> dict[str, Any]:
    return {"issuer": "software-vendor", "line": LINE, "sequence": sequence, "statement_digest": digest}


def test_numbers_rise_from_one_in_each_line(tmp_path: Path) -> None:
    assert [next_sequence(tmp_path, LINE) for _ in range(3)] == [1, 2, 3]
    assert next_sequence(tmp_path, "evidence/roaming") == 1


def test_numbers_are_private(tmp_path: Path) -> None:
    next_sequence(tmp_path / "domain", LINE)
    assert (tmp_path / "domain" / "sequences.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "domain").stat().st_mode & 0o777 == 0o700


def test_processes_at_once_never_get_the_same_number(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from hxmlops_evidence.sequences import next_sequence\n"
        f"for _ in range(20): print(next_sequence(pathlib.Path(sys.argv[1]), {LINE!r}))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    numbers = [int(number) for process in running for number in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 61))


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_sequence(tmp_path / "domain", **statement(5))
    assert list(tmp_path.iterdir()) == []


def test_the_same_statement_is_accepted_again(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    check_sequence(tmp_path, **statement(5))
    record_sequence(tmp_path, **statement(5))


def test_a_newer_statement_is_accepted(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    check_sequence(tmp_path, **statement(7, "sha256:b"))


def test_an_older_statement_is_refused(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    for refuse in (check_sequence, record_sequence):
        with pytest.raises(Refused, match=r"^sequence: evidence/churn 4 of software-vendor is older than 5"):
            refuse(tmp_path, **statement(4, "sha256:b"))


def test_another_statement_of_the_same_number_is_refused(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    with pytest.raises(Refused, match=r"^sequence: evidence/churn 5 of software-vendor is another one"):
        check_sequence(tmp_path, **statement(5, "sha256:b"))


def test_issuers_and_lines_are_apart(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    check_sequence(tmp_path, **(statement(1) | {"issuer": "other-vendor"}))
    check_sequence(tmp_path, **(statement(1) | {"line": "evidence/roaming"}))


def test_what_is_issued_and_what_is_accepted_are_apart(tmp_path: Path) -> None:
    record_sequence(tmp_path, **statement(5))
    assert next_sequence(tmp_path, LINE) == 1
    with pytest.raises(Refused):
        check_sequence(tmp_path, **statement(4))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"issued": 1, "accepted": {}}'])
def test_damage_is_not_taken_for_a_new_beginning(tmp_path: Path, content: str) -> None:
    (tmp_path / "sequences.json").write_text(content)
    with pytest.raises(BadInput, match="damaged; restore it"):
        check_sequence(tmp_path, **statement(5))
