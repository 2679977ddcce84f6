"""Sequence numbers of a domain's statements, issued and accepted, in `<domain>/sequences.json`.

A line is `<type>/<workflow id>`. What a receiver accepted last of a line is the least that it accepts from
then on, so an old statement cannot be replayed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import make_private_folder, write_private


def next_sequence(domain: Path, line: str) -> int:
    """The next number of a line that this domain issues, from 1; never given twice."""
    with _locked(domain):
        state = _read(domain)
        state["issued"][line] = state["issued"].get(line, 0) + 1
        _write(domain, state)
        return int(state["issued"][line])


def check_sequence(domain: Path, *, issuer: str, line: str, sequence: int, statement_digest: str) -> None:
    """Refused("sequence") when it is below the last one accepted, or equal to it in another statement. Writes
    nothing.
    """
    _check(_read(domain), issuer, line, sequence, statement_digest)


def record_sequence(domain: Path, *, issuer: str, line: str, sequence: int, statement_digest: str) -> None:
    """Make this the last accepted one, under the same conditions. To be called when its artifact has been
    accepted.
    """
    with _locked(domain):
        state = _read(domain)
        _check(state, issuer, line, sequence, statement_digest)
        entry = {"sequence": sequence, "statement_digest": statement_digest}
        if state["accepted"].setdefault(issuer, {}).get(line) != entry:
            state["accepted"][issuer][line] = entry
            _write(domain, state)


def _check(state: dict[str, Any], issuer: str, line: str, sequence: int, statement_digest: str) -> None:
    last = state["accepted"].get(issuer, {}).get(line)
    if last is None or sequence > last["sequence"]:
        return
    if sequence < last["sequence"]:
        raise Refused("sequence", f"{line} {sequence} of {issuer} is older than {last['sequence']}, the last accepted")
    if statement_digest != last["statement_digest"]:
        raise Refused("sequence", f"{line} {sequence} of {issuer} is another one than that accepted before")


@contextmanager
def _locked(domain: Path) -> Iterator[None]:
    """Across processes, on a file of its own since the other is replaced."""
    make_private_folder(domain)
    descriptor = os.open(domain / "sequences.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(domain: Path) -> dict[str, Any]:
    path = domain / "sequences.json"
    try:
        state = json.loads(path.read_bytes())
        return {"issued": dict(state["issued"]), "accepted": dict(state["accepted"])}
    except FileNotFoundError:
        return {"issued": {}, "accepted": {}}
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: damaged; restore it, else old statements could be replayed") from None


def _write(domain: Path, state: dict[str, Any]) -> None:
    write_private(domain / "sequences.json", (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())
