# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""A playbook on some domains: as a line to copy, or run by ansible-runner with its events told as they come."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hxMLOps.catalogue import PROJECT
from hxMLOps.mistakes import ConfigurationMistake

BIN = Path(sys.executable).parent
ANSIBLE_CFG = PROJECT / "ansible.cfg"


@dataclass(frozen=True)
class Play:
    """What to run: a playbook of the project's by name, on which domains (() for all), with which variables."""

    playbook: str
    inventory: Path
    domains: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    check: bool = False

    def line(self) -> str:
        """The line of ansible-playbook that does the same, to copy into a shell."""
        program = "ansible-playbook"
        if (found := shutil.which(program)) is None or Path(found).resolve() != (BIN / program).resolve():
            program = short(BIN / program)
        words = [program, "-i", short(self.inventory), short(PROJECT / "playbooks" / f"{self.playbook}.yml")]
        words += ["--limit", ",".join(self.domains)] if self.domains else []
        words += ["--check"] if self.check else []
        for name, value in self.variables.items():
            words += ["-e", f"{name}={value}"]
        found_by_itself = Path.cwd() == PROJECT and "ANSIBLE_CONFIG" not in os.environ
        return ("" if found_by_itself else f"ANSIBLE_CONFIG={shlex.quote(short(ANSIBLE_CFG))} ") + shlex.join(words)


def short(path: Path) -> str:
    """A path to copy into a shell: relative to the project, when that is where we are."""
    return str(path.relative_to(PROJECT)) if Path.cwd() == PROJECT and path.is_relative_to(PROJECT) else str(path)


class Listener(Protocol):
    """Who is told of a run as it goes on."""

    def say(self, domain: str, text: str) -> None:
        """A domain does something, in its own words."""

    def task(self, domain: str, name: str) -> None:
        """A domain begins a task."""

    def warn(self, text: str) -> None:
        """Ansible warns of something."""


@dataclass
class Outcome:
    """How a run ended. `results` are the tasks' results by domain, in their order; failed ones say `failed`."""

    code: int = 0  # of ansible-playbook
    interrupted: bool = False
    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # what Ansible said before any task ran


def run(play: Play, listener: Listener) -> Outcome:
    """Run it to its end. Nothing of it is left on disk; variables go by a file, not by the command line."""
    program = BIN / "ansible-playbook"
    playbook = PROJECT / "playbooks" / f"{play.playbook}.yml"
    for needed in (program, playbook):
        if not needed.exists():
            raise ConfigurationMistake(f"{needed} is not there: run this from the project's own folder and .venv")
    from ansible_runner import run as runner  # type: ignore[import-untyped] # a tenth of a second, for runs only

    outcome = Outcome()
    events = _Events(outcome, listener)
    with tempfile.TemporaryDirectory(prefix="hxMLOps-") as folder, events.signals():
        ended = runner(
            private_data_dir=folder,
            project_dir=str(PROJECT),
            playbook=str(playbook),
            inventory=str(play.inventory),
            limit=",".join(play.domains) or None,
            cmdline="--check" if play.check else None,
            extravars=dict(play.variables),
            envvars={
                "ANSIBLE_CONFIG": str(ANSIBLE_CFG),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
                "COLUMNS": "1000",
                "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)]),
            },
            settings={"pexpect_timeout": 1, "suppress_output_file": True, "idle_timeout": 0, "job_timeout": 0},
            quiet=True,
            event_handler=events,
            status_handler=lambda status, **_: _forget(folder, status["status"]),
            cancel_callback=lambda: events.killed,
        )
    outcome.code = int(ended.rc or 0)
    return outcome


def _forget(folder: str, status: str) -> None:
    """Remove what ansible-runner writes of the environment, once it has written it: there may be tokens in it."""
    if status == "running":
        for file in Path(folder).glob("artifacts/*/command"):
            file.unlink()


class _Events:
    """Reads ansible-runner's events; keeps none of them in its folder."""

    def __init__(self, outcome: Outcome, listener: Listener) -> None:
        self.outcome = outcome
        self.listener = listener
        self.process = 0  # of ansible-playbook
        self.killed = False

    def __call__(self, event: Mapping[str, Any]) -> bool:
        kind, data = event.get("event"), event.get("event_data") or {}
        self.process = int(event.get("pid") or self.process)
        host, result = str(data.get("host") or ""), data.get("res") or {}
        if kind == "runner_on_start":
            self.listener.task(host, str(data.get("task") or ""))
        elif kind in ("runner_on_ok", "runner_on_unreachable", "runner_on_failed") and not data.get("ignore_errors"):
            self.outcome.results.append((host, {**result, "failed": kind != "runner_on_ok"}))
        elif kind in ("verbose", "warning", "deprecated", "error", "system_warning"):
            self._text(str(event.get("stdout") or ""))
        return False

    def _text(self, text: str) -> None:
        """A line of a domain's (`[domain] words`), a warning, or why Ansible did not begin."""
        for line in filter(None, map(str.strip, text.splitlines())):
            if line.startswith("[WARNING]"):
                self.listener.warn(line.removeprefix("[WARNING]:").strip())
            elif line.startswith(("[ERROR]", "ERROR!")):
                self.outcome.errors.append(line.removeprefix("[ERROR]:").removeprefix("ERROR!").strip())
            elif line.startswith("[") and "] " in line:
                domain, _, words = line[1:].partition("] ")
                self.listener.say(domain, words)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C goes to ansible-playbook, which lives in a session of its own; a second one ends it at once."""

        def on_signal(number: int, _frame: object) -> None:
            self.killed = self.outcome.interrupted or not self.process
            self.outcome.interrupted = True
            if not self.killed:
                with suppress(ProcessLookupError):
                    os.killpg(self.process, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
