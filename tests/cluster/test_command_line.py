"""The command line on real API servers: what people see, and what is left in the cluster."""

from __future__ import annotations

import base64
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.cluster.clusters import Cluster
from tests.cluster.play import Play

STORAGE = ("component", "storage")
OF_THE_ENVIRONMENT = "do-not-write-me-down"


class Terminal:
    """Runs `python -m hxMLOps` in a folder that is not the project's, on the domains of a `Play`."""

    def __init__(self, play: Play, temporary: Path) -> None:
        self.play = play
        self.folder = play.folder / "elsewhere"
        self.folder.mkdir()
        self.temporary = temporary
        self.config = play.folder / "config.yml"
        play.command("check")  # writes the inventory
        self.config.write_text(play.inventory.read_text())
        self.env = play.environment(
            HXMLOPS_CONFIG=str(self.config), TMPDIR=str(self.temporary), COLUMNS="80", A_TOKEN=OF_THE_ENVIRONMENT
        )
        for name in ("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_CALLBACKS_ENABLED"):  # of the harness
            del self.env[name]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hxMLOps", *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0) -> tuple[list[list[str]], str]:
        """The rows of the table that a command prints, without its head, and what it says on standard error."""
        with self.start(*arguments) as process:
            output, told = process.communicate(timeout=240)
        assert process.returncode == code, output + told
        assert "Traceback" not in output + told
        assert list(self.temporary.glob("hxMLOps-*")) == []
        return [line.split() for line in output.splitlines()[1:]], told


@pytest.fixture
def hx(play: Play) -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory() as folder:  # a short path: Ansible's sockets lie below it
        yield Terminal(play, Path(folder))


def columns(rows: Sequence[Sequence[str]], *numbers: int) -> list[list[str]]:
    return sorted([row[number] for number in numbers] for row in rows)


def test_a_module_comes_is_there_changes_and_goes(hx: Terminal, clusters: dict[str, Cluster], namespace: str) -> None:
    staging = ("-d", "mno-staging")
    rows, _ = hx(*STORAGE, "create", "postgres", *staging, "--check")
    assert rows[0][:5] == ["mno-staging", "postgres", "would", "be", "installed"]
    assert hx(*STORAGE, "status", "postgres", *staging)[0] == [["mno-staging", "postgres", "absent"]]

    rows, _ = hx(*STORAGE, "create", "postgres", *staging)
    assert rows[0][:4] == ["mno-staging", "postgres", "installed", "1"]
    rows, _ = hx(*STORAGE, "create", "postgres", *staging)
    assert rows[0][:4] == ["mno-staging", "postgres", "unchanged", "1"]

    values = hx.folder / "values.yaml"
    values.write_text(yaml.safe_dump({"podLabels": {"team": "churn"}}))
    rows, _ = hx(*STORAGE, "create", "postgres", *staging, "--file", "values.yaml")
    assert rows[0][:4] == ["mno-staging", "postgres", "upgraded", "2"]
    rows, _ = hx(*STORAGE, "status", "postgres", *staging)
    assert rows[0][:4] == ["mno-staging", "postgres", "deployed", "2"]
    assert rows[0][5] == "yes"

    rows, _ = hx(*STORAGE, "delete", "postgres", *staging)
    assert rows[0][:3] == ["mno-staging", "postgres", "deleted"]
    claims = clusters["mno-staging"].kubectl("get", "persistentvolumeclaims", "-n", namespace, "-o", "name")
    assert claims.strip()
    hx(*STORAGE, "delete", "postgres", *staging, "--delete-data")
    left = clusters["mno-staging"].kubectl("get", "persistentvolumeclaims,secrets", "-n", namespace, "-o", "name")
    assert "postgres" not in left


def test_the_line_shown_does_the_same(hx: Terminal) -> None:
    create = (*STORAGE, "create", "postgres", "-d", "all")
    rows, _ = hx(*create)
    assert columns(rows, 0, 2) == [
        ["mno-production", "installed"],
        ["mno-staging", "installed"],
        ["software-vendor", "installed"],
    ]
    with hx.start(*create, "--show") as process:
        line = process.communicate()[0]
    assert shlex.split(line)[0].startswith("ANSIBLE_CONFIG=")
    again = subprocess.run(line, shell=True, cwd=hx.folder, env=hx.env, capture_output=True, text=True, check=True)  # noqa: S602
    assert again.stdout.count("changed=0") == 3
    assert columns(hx(*create)[0], 2) == [["unchanged"]] * 3


def test_the_names_of_the_original_reach_their_roles(hx: Terminal) -> None:
    for words, release in (
        (("component", "ml_toolkit", "status", "kubeflowPipeline"), "kubeflow-pipelines"),
        (("link", "api", "status", "datasetsharing"), "dataset-sharing"),
        (("component", "serving_platform", "status", "model_server"), "model-server"),
    ):
        assert hx(*words, "-d", "software-vendor")[0] == [["software-vendor", release, "absent"]]


def test_one_domain_fails_and_the_others_go_on(hx: Terminal) -> None:
    inventory = yaml.safe_load(hx.config.read_text())
    inventory["all"]["children"]["software_vendors"]["hosts"]["software-vendor"]["hxmlops_context"] = "nowhere"
    hx.config.write_text(yaml.safe_dump(inventory))
    rows, told = hx(*STORAGE, "create", "minio", "-d", "software-vendor", "-d", "mno-production", code=1)
    assert ["mno-production", "minio", "installed", "1"] in [row[:4] for row in rows]
    failed = next(" ".join(row) for row in rows if row[0] == "software-vendor")
    assert "failed" in failed
    assert "has no context nowhere" in failed
    rows, told = hx("check", "connection", code=3)
    assert columns(rows, 0, 1) == [["mno-production", "yes"], ["mno-staging", "yes"], ["software-vendor", "no"]]
    assert "hxMLOps: software-vendor: " in told


def test_values_against_the_schema_are_refused_in_the_clusters_words(hx: Terminal) -> None:
    (hx.folder / "values.yaml").write_text("persistance: {size: 1Gi}\n")
    rows, _ = hx(*STORAGE, "create", "postgres", "-d", "mno-staging", "-f", "values.yaml", code=1)
    assert rows[0][:3] == ["mno-staging", "postgres", "failed"]
    assert "persistance" in " ".join(rows[0])


def test_ctrl_c_ends_it_and_leaves_nothing_behind(hx: Terminal) -> None:
    (hx.folder / "values.yaml").write_text(yaml.safe_dump({"podAnnotations": {"hxmlops.test/fault": "never-ready"}}))
    with hx.start(*STORAGE, "create", "postgres", "-d", "mno-staging", "-f", "values.yaml") as process:
        try:
            assert process.stderr is not None
            assert "0 of 1 ready" in process.stderr.readline()
            assert len(running(hx.config)) > 0
            written = [path for path in hx.temporary.rglob("*") if path.is_file()]
            assert not any(OF_THE_ENVIRONMENT.encode() in path.read_bytes() for path in written)
            process.send_signal(signal.SIGINT)
            output, told = process.communicate(timeout=60)
        finally:
            process.terminate()
    assert process.returncode == 130, output + told
    assert "interrupted" in told
    deadline = time.monotonic() + 30
    while running(hx.config):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert list(hx.temporary.glob("hxMLOps-*")) == []


def running(config: Path) -> list[str]:
    """Command lines of the processes that work with this inventory."""
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    return [line for line in listed.splitlines() if str(config) in line]


def test_no_secret_is_seen(hx: Terminal, clusters: dict[str, Cluster], namespace: str) -> None:
    staging = ("-d", "mno-staging")
    seen = [hx(*STORAGE, action, "postgres", *staging) for action in ("create", "info", "status", "delete")]
    kept = clusters["mno-staging"].kubectl("get", "secret", "postgres-auth", "-n", namespace, "-o", "json")
    password = json.loads(kept)["data"]["password"]
    assert base64.b64decode(password)
    assert password not in json.dumps(seen)
    assert base64.b64decode(password).decode() not in json.dumps(seen)
