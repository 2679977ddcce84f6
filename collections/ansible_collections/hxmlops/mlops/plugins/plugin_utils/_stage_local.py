# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Stages as local processes: the ``local`` runtime's executor.

A stage's folder is named by its key, the digest of what determines its result: specification, code, libraries
and inputs. A result that stands there and whose files still hash right is taken as it is. The program works in
a session of its own and holds the folder's lock, so it outlives a killed ansible-playbook; the next run waits
for it and adopts its result.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import (
    digest_of,
    read_json,
    sha256_tree,
    write_json,
)
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import environment

POLL_S = 0.02
BUSY = 5  # exit code of a program whose folder another program has locked


class Stage:
    """One stage of a run: its specification, its inputs (name in the input folder -> path) and its folder."""

    def __init__(self, name: str, run: dict[str, Any], parameters: dict[str, Any], inputs: dict[str, Path]) -> None:
        self.name = name
        self.step = f"{name} {parameters['kind']}" if "kind" in parameters else name
        self.run = run
        self.inputs = inputs
        self.spec = {
            "stage": name,
            "domain": run["domain"],
            "party": run["party"],
            "workflow": run["workflow"],
            "contract": run["contract"],
            "contract_digest": run["contract_digest"],
            "parameters": parameters,
            "code": run["code"],
        }
        self.input_digests = {name: sha256_tree(path) for name, path in sorted(inputs.items())}
        self.key = digest_of({"spec": self.spec, "inputs": self.input_digests})
        hexadecimal = self.key.removeprefix("sha256:")
        self.folder = Path(run["state"]) / "stages" / f"{name}-{hexadecimal[:12]}"

    def result(self) -> dict[str, Any] | None:
        """The recorded result when it stands for this stage: done, still valid, its files as they were."""
        result = read_json(self.folder / "result.json")
        if not result or result["status"] != "done" or read_json(self.folder / "key.json") != self.key:
            return None
        until = result.get("valid_until")
        if until and datetime.datetime.fromisoformat(until) <= datetime.datetime.now(datetime.UTC):
            return None
        output = self.folder / "output"
        if not output.is_dir() or sha256_tree(output) != result["outputs"]:
            return None
        return dict(result)

    def wait_for_orphan(self, say: Callable[[str], None]) -> bool:
        """Wait while a program left over from a killed run works in the folder; True when there was one."""
        lock = self.folder / "lock"
        if not lock.exists():
            return False
        with lock.open("r+") as stream:

            def free() -> bool:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(POLL_S)
                    return False
                return True

            if free():
                return False
            say(f"{self.name}: an earlier run's program still works on this; waiting for it")
            self._follow(say, free)
        return True

    def execute(self, volatile: dict[str, Any], say: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        """Run the program to its end; answer its exit code and its result ({} when it left none).

        `volatile` goes into the parameters without being part of the key (energy records so far).
        """
        self._prepare(volatile)
        command = [
            self.run["python"], "-m", "hxmlops_stages", self.name,
            "--spec", str(self.folder / "spec.json"),
            "--input", str(self.folder / "input"),
            "--output", str(self.folder / "output"),
            "--domain", self.run["state"],
            "--run-id", self.run["id"],
            "--location", self.run["location"],
        ]  # fmt: skip
        with _private(self.folder / "log.txt") as log, _private(self.folder / "error.txt") as errors:
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                cwd=self.folder,
                env=environment(),
                start_new_session=True,
            )

        def ended() -> bool:
            try:
                program.wait(POLL_S)
            except subprocess.TimeoutExpired:
                return False
            return True

        self._follow(say, ended)
        return program.returncode, read_json(self.folder / "result.json") or {}

    def last_line(self) -> str:
        """The last line of the program's complaint: the reason of a program that left no result."""
        lines = (self.folder / "error.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "the program ended without a word"

    def _prepare(self, volatile: dict[str, Any]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "result.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "input", ignore_errors=True)
        (self.folder / "input").mkdir(mode=0o700)
        for name, path in self.inputs.items():
            link = self.folder / "input" / name
            link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.symlink_to(path)
        write_json(self.folder / "spec.json", {**self.spec, "parameters": {**self.spec["parameters"], **volatile}})
        write_json(self.folder / "key.json", self.key)

    def _follow(self, say: Callable[[str], None], ended: Callable[[], bool]) -> None:
        """Pass on the program's progress lines (``STAGE: text``) until it ended."""
        log, prefix, shown = self.folder / "log.txt", f"{self.name}: ", 0
        while True:
            last = ended()
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            lines = (text if last else text.rpartition("\n")[0]).splitlines()
            for line in lines[shown:]:
                if line.startswith(prefix):
                    say(line)
            shown = len(lines)
            if last:
                return


def _private(path: Path) -> TextIO:
    """A file of its own for a program to write into, as its owner only."""
    return open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))
