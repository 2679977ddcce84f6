# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""A domain's own records on the local runtime: who works in it now, and what its stages used.

Everything of a domain lies in one folder, private to it: keys, pins, tokens, stages, services, records.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import read_json, write_json


class Busy(Exception):
    """Another live run works in this domain; the text says which and what to do."""


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22), or None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def alive(owner: dict[str, Any] | None) -> bool:
    """True while the process that a record names by process id and start time lives."""
    return owner is not None and started_at(int(owner["pid"])) == owner["started_at"]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Domain:
    """The folder of one domain."""

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder = Path(folder)
        self.name = name
        self._run = self.folder / "run.json"
        self._ledger = self.folder / "ledger.jsonl"

    def claim(self, pid: int, *, write: bool) -> str:
        """Take the domain for the ansible-playbook process `pid`; answer the run's id.

        The same process keeps its run. A dead owner's claim is taken over. Raises Busy for a live one.
        With `write` false (check mode) nothing is written.
        """
        if not write:
            self._refuse_other(pid)
            return "check"
        with _locked(self.folder / "run.lock"):
            mine = self._refuse_other(pid)
            if mine:
                return str(mine["id"])
            now = datetime.datetime.now(datetime.UTC)
            run = {
                "id": f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
                "pid": pid,
                "started_at": started_at(pid),
                "since": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            }
            write_json(self._run, run)
            return str(run["id"])

    def _refuse_other(self, pid: int) -> dict[str, Any] | None:
        """This process's own claim, or None; Busy when another live process holds the domain."""
        owner = read_json(self._run)
        if owner is None or not alive(owner):
            return None
        if owner["pid"] == pid:
            return dict(owner)
        raise Busy(
            f"another run works in domain {self.name} since {owner['since']} (process {owner['pid']}, "
            f"run {owner['id']}): wait for it to end, or stop it with: kill {owner['pid']}"
        )

    def record(self, result: dict[str, Any], *, workflow: str, step: str) -> None:
        """Add a stage's result to the ledger once, whichever run sees it first.

        `step` tells apart what one stage does twice in a run (publish a verdict, publish a model).
        """
        energy = result.get("energy") or {}
        attempt = energy.get("attempt_id")
        if not attempt:
            return
        with _locked(self.folder / "ledger.lock"):
            if any(entry["energy"]["attempt_id"] == attempt for entry in self.records()):
                return
            entry = {
                "workflow": workflow,
                "run_id": result.get("run_id"),
                "changed": result.get("changed", True),
                "status": result["status"],
                "stage": result["stage"],
                "step": step,
                "energy": energy,
            }
            with self._ledger.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry, sort_keys=True) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            self._ledger.chmod(0o600)

    def records(self) -> list[dict[str, Any]]:
        """The ledger's entries in the order of writing; a line cut off by a crash is left out."""
        try:
            lines = self._ledger.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def ledger(self, workflow: str) -> list[dict[str, Any]]:
        """A workflow's records that count: what did something, and what failed (a check repeated with the same
        outcome is left out)."""
        return [
            entry
            for entry in self.records()
            if entry["workflow"] == workflow and (entry["changed"] or entry["status"] != "done")
        ]

    def latest(self, workflow: str) -> list[dict[str, Any]]:
        """Energy records, with their run, of each step's last success and of the failures around it."""
        entries = self.ledger(workflow)
        keep: set[int] = set()
        for step in {entry["step"] for entry in entries}:
            own = [i for i, entry in enumerate(entries) if entry["step"] == step]
            done = [i for i in own if entries[i]["status"] == "done"]
            keep |= {i for i in own if len(done) < 2 or i > done[-2]}
        return [{**entries[i]["energy"], "run_id": entries[i]["run_id"]} for i in sorted(keep)]

    def energy_since(self, stage: str, workflow: str, stages: list[str]) -> list[dict[str, Any]]:
        """Energy records that `stage` has to declare: of every attempt at `stages` since `stage` last succeeded,
        failed ones included, and of the last success of each (a stage that was skipped keeps its joules)."""
        entries = self.ledger(workflow)
        last = max(
            (i for i, entry in enumerate(entries) if entry["stage"] == stage and entry["status"] == "done"),
            default=-1,
        )
        latest = {entry["stage"]: i for i, entry in enumerate(entries) if entry["status"] == "done"}
        keep = {*range(last + 1, len(entries)), *(latest[name] for name in stages if name in latest)}
        return [entries[i]["energy"] for i in sorted(keep) if entries[i]["stage"] in stages]

    def keep_papers(self, workflow: str, step: str, output: Path) -> None:
        """Keep the newest of each signed statement that a stage made or received, and of each gate's criteria.

        They outlive the stages' folders: reports and audits read them.
        """
        papers = self.folder / "papers" / workflow
        for file in sorted(output.rglob("*.dsse.json")):
            envelope = json.loads(file.read_text(encoding="utf-8"))
            statement = json.loads(base64.b64decode(envelope["payload"]))
            role = statement["body"].get("role")
            name = statement["type"] + (f"-{role}" if role else "")
            _keep(papers / "statements" / f"{name}.dsse.json", envelope)
        if (output / "criteria.json").exists():
            _keep(papers / "gates" / f"{step}.json", read_json(output / "criteria.json"))


def _keep(path: Path, value: Any) -> None:
    if read_json(path) != value:
        write_json(path, value)
