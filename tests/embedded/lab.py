"""The embedded workflow as tests run it: the demo's inventory and playbooks, with a home and ports of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
DOMAINS = ("mno-production", "mno-staging", "software-vendor")
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass
class Played:
    """An ended ansible-playbook."""

    code: int
    output: str
    hosts: dict[str, dict[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.hosts = {
            host: {"ok": int(ok), "changed": int(changed), "failed": int(failed) + int(unreachable)}
            for host, ok, changed, unreachable, failed in _RECAP.findall(self.output)
        }

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.hosts.values())

    def succeeded(self) -> Played:
        assert self.code == 0, self.output
        return self

    def failed(self, words: str) -> Played:
        """It failed, and said so in one line that has these words."""
        assert self.code != 0, self.output
        told = re.sub(r"\s+", " ", self.output)
        assert words in told, f"{words!r} not in:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        return self


class Lab:
    """Three domains on this machine in a folder of their own, and a copy of a use case that a test may change.

    In the copy a model may be a hundred times as slow: nobody is refused because this machine is busy with other tests.
    """

    def __init__(self, folder: Path, use_case: Path = PROJECT / "workflows" / "churn") -> None:
        self.home = folder / "home"
        self.use_case = folder / use_case.name
        shutil.copytree(use_case, self.use_case, ignore=shutil.ignore_patterns("__pycache__"))
        limits = re.compile(r"(?<=latency_ms_p95: )\d+")
        self.workflow.write_text(limits.sub(lambda limit: f"{limit[0]}00", self.workflow.read_text()))
        self.port = four_free_ports()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "HXMLOPS_HOME": str(self.home),
            "HXMLOPS_PORT": str(self.port),
            "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "120",
        }

    @property
    def workflow(self) -> Path:
        return self.use_case / "workflow.yml"

    @property
    def identifier(self) -> str:
        return str(yaml.safe_load(self.workflow.read_text())["id"])

    def command(self, playbook: str, *options: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "ansible-playbook"),
            str(PROJECT / "playbooks" / f"{playbook}.yml"),
            "-e",
            f"hxmlops_workflow={self.workflow}",
            *options,
        ]

    def start(self, playbook: str = "workflow", *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(playbook, *options),
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str = "workflow", *options: str) -> Played:
        with self.start(playbook, *options) as process:
            output, _ = process.communicate(timeout=240)
        return Played(process.returncode, output)

    def change(self, file: str, old: str, new: str) -> None:
        """Replace text of the use case; it has to be there once."""
        path = self.use_case / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def state(self, domain: str) -> Path:
        return self.home / domain

    def stages(self, domain: str, stage: str) -> list[dict[str, Any]]:
        """Results of a stage in a domain, oldest first; each with its `folder`."""
        found = [
            {**json.loads(file.read_text()), "folder": file.parent}
            for file in (self.state(domain) / "stages").glob(f"{stage}-*/result.json")
        ]
        return sorted(found, key=lambda result: str(result["finished_at"]))

    def output(self, domain: str, stage: str) -> Path:
        """Output folder of the newest result of a stage."""
        return Path(self.stages(domain, stage)[-1]["folder"]) / "output"

    def computed(self) -> set[str]:
        """Attempts of all stages in all domains that did something, by their identifiers."""
        return {
            f"{domain}/{entry['stage']}/{entry['energy']['attempt_id']}"
            for domain in DOMAINS
            for entry in self.ledger(domain)
            if entry["changed"]
        }

    def ledger(self, domain: str) -> list[dict[str, Any]]:
        file = self.state(domain) / "ledger.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def token(self, holder: str, of: str) -> str:
        return (self.state(holder) / "tokens" / f"{of}.token").read_text().strip()


@contextlib.contextmanager
def laboratory(folder: Path, use_case: Path = PROJECT / "workflows" / "churn") -> Iterator[Lab]:
    """A lab whose services are stopped at the end."""
    lab = Lab(folder, use_case)
    try:
        yield lab
    finally:
        lab.play("teardown")


def four_free_ports() -> int:
    """The first of four free ports in a row, apart from those that another test worker takes."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for first in range(20000 + worker * 2000, 22000 + worker * 2000, 8):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + 4):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no four free ports in a row")


def ask(url: str, *, token: str | None = None, body: dict[str, Any] | None = None) -> Any:
    """GET a URL of the lab's, or POST a JSON body to it; the JSON answer. Raises OSError when nobody listens."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {**headers, "Content-Type": "application/json"})  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - ours
        return json.load(answer)
