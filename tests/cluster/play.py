"""ansible-playbook on the three domains of the test clusters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.cluster.clusters import Cluster, environment
from tests.embedded import lab

PROJECT = lab.PROJECT
_GROUPS = {"software-vendor": "software_vendors", "mno-staging": "mno_staging", "mno-production": "mno_production"}
BOTH_HELMS = pytest.mark.parametrize("helm", ["helm3", "helm4"], indirect=True)
_PARTIES = {"software-vendor": "vendor", "mno-staging": "operator", "mno-production": "operator"}


# the cluster of each domain, for the Ansible modules that are told which
CLUSTER = {
    "kubeconfig": "{{ hxmlops_kubeconfig }}",
    "context": "{{ hxmlops_context }}",
    "namespace": "{{ hxmlops_namespace }}",
}


def release(check_mode: bool = False, fails: bool = False, **options: Any) -> dict[str, Any]:
    """A task of helm_release in the domain's namespace; with `fails`, the play goes on when it does."""
    arguments = {**CLUSTER, "timeout_s": 60, **options}
    return {"hxmlops.mlops.helm_release": arguments, "check_mode": check_mode, "diff": True, "ignore_errors": fails}


@dataclass
class TaskResult:
    """What one task did on one host."""

    host: str
    task: str
    action: str
    status: str  # ok, changed, failed, ignored, unreachable or skipped
    result: dict[str, Any]


@dataclass
class Played(lab.Played):
    """An ended ansible-playbook: its exit code, output, recap by host, and its tasks' results in their order."""

    tasks: list[TaskResult]

    def succeeded(self) -> Self:
        super().succeeded()
        return self

    def failed(self, words: str) -> Self:
        super().failed(words)
        return self

    def results(self, action: str, host: str | None = None) -> list[dict[str, Any]]:
        """Results of an Ansible module or of a task of this name (full, or its last word), of one host or of all."""
        return [
            each.result
            for each in self.tasks
            if action in (each.task, each.action, each.action.rpartition(".")[2]) and host in (None, each.host)
        ]


class Play:
    """Runs playbooks or single tasks; one namespace for all domains, helm from one folder."""

    def __init__(self, folder: Path, clusters: Mapping[str, Cluster], namespace: str, helm: Path) -> None:
        self.folder = folder
        self._results: dict[int, Path] = {}
        self.namespace = namespace
        self.helm = helm
        self.inventory = folder / "inventory.yml"
        self.hosts: dict[str, dict[str, Any]] = {
            name: {
                "hxmlops_kubeconfig": str(cluster.kubeconfig),
                "hxmlops_context": cluster.context,
                "hxmlops_party": _PARTIES[name],
            }
            for name, cluster in clusters.items()
        }
        self.variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hxmlops_runtime": "kubernetes",
            "hxmlops_namespace": namespace,
            "hxmlops_location": "ES",
        }

    def command(self, what: str | Path | Sequence[Mapping[str, Any]], *options: str, **variables: Any) -> list[str]:
        """The command line for a playbook of the project's by its name, one by its path, or a list of tasks.

        The inventory is written anew from `hosts` and `variables`, which a test may change.
        """
        groups = {_GROUPS[name]: {"hosts": {name: own}} for name, own in self.hosts.items()}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": self.variables, "children": groups}}))
        if isinstance(what, Path):
            playbook = what
        elif isinstance(what, str):
            playbook = PROJECT / "playbooks" / f"{what}.yml"
        else:
            playbook = self.folder / "play.yml"
            plays = [{"hosts": "all", "gather_facts": False, "tasks": [dict(task) for task in what]}]
            playbook.write_text(yaml.safe_dump(plays))
        extra = ["-e", json.dumps(variables)] if variables else []
        ansible = Path(sys.executable).parent / "ansible-playbook"
        return [str(ansible), "-i", str(self.inventory), str(playbook), *extra, *options]

    def environment(self, **more: str) -> dict[str, str]:
        return environment(
            **{
                "PATH": f"{self.helm}{os.pathsep}{os.environ['PATH']}",
                "HXMLOPS_HOME": str(self.folder / "home"),
                "HELM_CACHE_HOME": str(self.folder / "helm" / "cache"),
                "HELM_CONFIG_HOME": str(self.folder / "helm" / "config"),
                "HELM_DATA_HOME": str(self.folder / "helm" / "data"),
                "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible"),
                "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
                "ANSIBLE_CALLBACKS_ENABLED": "results",
                "ANSIBLE_NOCOLOR": "1",
                "COLUMNS": "120",
                **more,
            }
        )

    def start(
        self,
        what: str | Path | Sequence[Mapping[str, Any]],
        *options: str,
        env: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> subprocess.Popen[str]:
        """Start it in a session of its own and go on; for tests that kill it. `finish` waits for it."""
        results = self.folder / f"results-{uuid.uuid4().hex[:8]}.jsonl"
        process = subprocess.Popen(
            self.command(what, *options, **variables),
            cwd=PROJECT,
            env=self.environment(HXMLOPS_RESULTS=str(results), **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._results[process.pid] = results
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = 240) -> Played:
        """Wait for what `start` started, for `timeout` seconds at most."""
        with process:
            try:
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        results = self._results.pop(process.pid)
        lines = results.read_text().splitlines() if results.exists() else []
        return Played(process.returncode, output, [TaskResult(**json.loads(line)) for line in lines])

    def __call__(
        self,
        what: str | Path | Sequence[Mapping[str, Any]],
        *options: str,
        env: Mapping[str, str] | None = None,
        timeout: float = 240,
        **variables: Any,
    ) -> Played:
        """Run it to its end: `play("deploy", "--check", hxmlops_modules=[...])`, `play([{"debug": {"msg": "hi"}}])`."""
        return self.finish(self.start(what, *options, env=env, **variables), timeout)
