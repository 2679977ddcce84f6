"""Nothing secret where it does not belong: a run at -vvv of everything, searched for every secret value."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import secrets
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.modules import MODULES, module
from tests.cluster.clusters import Cluster
from tests.cluster.play import CLUSTER, Play, release
from tests.cluster.web import BAD_HOOK, web

HOST = "software-vendor"
LOUD = ("--limit", HOST, "-vvv", "--diff")
OWN = "{{ own }}"  # a password in the values of a chart that takes it so
SHORTEST = 8  # below it are user names and empty lists, which are no secrets
GIVEN = {  # module: the keys of its Secret that a person gives
    "postgres": "password",
    "minio": "secretKey",
    "grafana": "admin-password",
}


class Watch:
    """What programs of a run show to others while it goes on: their arguments, their environment, temporary files."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.seen: dict[str, bytes] = {}
        self.helms = 0
        self._folder, self._mark, self._end = folder, mark.encode(), threading.Event()

    def _look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                arguments = (process / "cmdline").read_bytes()
                if self._mark in arguments or self._mark in (process / "environ").read_bytes():
                    self.helms += arguments.partition(b"\0")[0].endswith(b"/helm")
                    self._note(f"arguments of {process.name}", arguments)
                    self._note(f"environment of {process.name}", (process / "environ").read_bytes())
        for file in filter(Path.is_file, self._folder.rglob("*")):
            with contextlib.suppress(OSError):
                self._note(str(file), file.read_bytes())

    def _note(self, where: str, what: bytes) -> None:
        if what and what not in self.seen.get(where, b""):
            self.seen[where] = self.seen.get(where, b"") + what

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again until the end of the block, and once more after it."""

        def work() -> None:
            while not self._end.wait(0.02):
                self._look()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            self._look()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files; its path is short, as sockets are made in it."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        yield Path(folder)


def forms(secret: str) -> set[str]:
    """How a secret may be written."""
    return {
        secret,
        base64.b64encode(secret.encode()).decode().rstrip("="),
        json.dumps(secret)[1:-1],
        urllib.parse.quote(secret, safe=""),
    }


def found(known: set[str], text: str) -> list[str]:
    """Which secrets stand in a text, with what is around them."""
    places = [(text.find(form), form) for secret in known for form in forms(secret)]
    return [text[max(0, at - 80) : at + len(form) + 20] for at, form in places if at >= 0]


def made_secrets(cluster: Cluster, namespace: str) -> set[str]:
    """Secret texts that the engine put into a namespace."""
    asked = ("get", "secrets", "-n", namespace, "-l", "app.kubernetes.io/managed-by=hxmlops", "-o", "json")
    values = [value for each in json.loads(cluster.kubectl(*asked))["items"] for value in each["data"].values()]
    return {text for value in values if len(text := base64.b64decode(value).decode()) >= SHORTEST}


def records(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Helm's records of a namespace, unpacked, by name."""
    items = json.loads(cluster.kubectl("get", "secrets", "-n", namespace, "-l", "owner=helm", "-o", "json"))["items"]
    unpack = base64.b64decode
    return {
        each["metadata"]["name"]: gzip.decompress(unpack(unpack(each["data"]["release"]))).decode() for each in items
    }


def test_no_secret_is_seen_anywhere(play: Play, clusters: dict[str, Cluster], namespace: str, temporary: Path) -> None:
    vendor = clusters[HOST]
    given = {name: f"given+{secrets.token_hex(12)}/'\"" for name in GIVEN}
    own, role_given = f"own-{secrets.token_hex(12)}", f"role-{secrets.token_hex(12)}"
    play.hosts[HOST]["hxmlops_modules"] = [
        {"module": name, **({"secrets": {GIVEN[name]: given[name]}} if name in GIVEN else {})} for name in MODULES
    ]
    play.hosts[HOST]["role_given"] = role_given
    play.hosts[HOST]["own"] = own
    loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1", "TMPDIR": str(temporary), "HXMLOPS_MARK": f"mark-{namespace}"}
    less = {**loud, "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "0"}  # with it, Ansible itself shows what a task of ours is told
    watch = Watch(temporary, f"mark-{namespace}")
    output = []

    def run(what: Any, *options: str, fails: bool = False, env: dict[str, str] | None = None, **variables: Any) -> None:
        played = play(what, *LOUD, *options, env=env or loud, **variables)
        assert (played.code != 0) == fails, played.output
        output.extend([played.output, json.dumps([task.result for task in played.tasks])])

    role: dict[str, Any] = {
        "ansible.builtin.import_role": {"name": "hxmlops.mlops.timescale"},
        "vars": {"timescale_name": "second", "timescale_secrets": {"password": "{{ role_given }}"}},
    }
    mine = web(password=OWN, message="hi")
    mine_failing = [
        release(fails=True, **web(password=f"{OWN} {OWN}")),  # against the schema, which says the value
        release(fails=True, **web(password=OWN, refuse=True)),
        release(fails=True, **web(password=OWN, hook=BAD_HOOK)),
    ]
    with watch.watching():
        run("prepare")
        run("deploy", "--check")
        run("deploy")
        run("deploy")
        for action in ("status", "info", "create"):
            run("module", hxmlops_module="postgres", hxmlops_action=action)
        run("images")
        run([role])
        other = {**mine, "values": {**mine["values"], "message": "ho"}}
        run([release(**mine), release(**other, drift="report")], env=less)
        run([{"hxmlops.mlops.helm_release_info": CLUSTER}])
        run([*mine_failing, release(recover=True, **mine)], env=less)
        run("deploy", fails=True, hxmlops_context="nowhere")
        changed = {"values": {"podAnnotations": {"hxmlops.test/fault": "crash"}}}
        run([{"hxmlops.mlops.modules": {"modules": [{"module": "postgres", **changed}], "timeout_s": 1}}], fails=True)
        known = made_secrets(vendor, namespace)
        kept = records(vendor, namespace)
        run("teardown", "--check")
        run("teardown", hxmlops_delete_data=True)

    assert known >= {*given.values(), role_given}
    wanted = {
        secret["name"].format(name=name.replace("_", "-"))
        for name in MODULES
        for secret in module(name).get("secrets", [])
    }
    assert len(known) >= len(wanted) - 2  # the two lists of tokens are empty at first
    assert watch.helms > 0
    everything = known | {own}
    assert found(everything, "\n".join(output)) == []
    for where, what in watch.seen.items():
        if not where.endswith(("inventory.yml", "play.yml")):
            assert found(everything, what.decode(errors="replace")) == [], where
    for name, record in kept.items():
        # a chart that takes a password as a value has it in Helm's record: that is Helm's, and why ours take Secrets
        assert found(known if ".web." in name else everything, record) == [], name


def test_a_record_is_never_garbled_by_a_secret_that_looks_like_something_else(play: Play) -> None:
    """A password of 5432 is a bad one, but no reason to say that PostgreSQL listens at port ********."""

    def role(tasks_from: str = "main") -> dict[str, Any]:
        variables = {"postgres_secrets": {"password": "5432", "username": "postgres"}}
        return {
            "ansible.builtin.import_role": {"name": "hxmlops.mlops.postgres", "tasks_from": tasks_from},
            "vars": variables,
        }

    played = play([role(), role("status"), role("info")], "--limit", HOST).succeeded()
    (made,) = played.results("modules")[0]["releases"]
    assert (made["name"], made["action"], made["revision"]) == ("postgres", "install", 1)
    (status,) = played.results("modules_status")[0]["releases"]
    assert (status["name"], status["ready"], status["app_version"]) == ("postgres", True, "18.6")
    (info,) = played.results("modules_info")[0]["modules"]
    assert info["ports"] == {"postgresql": 5432}
    assert "********" not in json.dumps([task.result for task in played.tasks])


def test_a_token_is_not_shown(play: Play) -> None:
    play.hosts[HOST]["token"] = token = secrets.token_hex(12)
    cluster = {"host": "https://127.0.0.1:1", "api_key": "{{ token }}", "namespace": "any"}
    told = play([{"hxmlops.mlops.helm_release_info": cluster}], *LOUD).failed("nothing listens there")
    assert token not in told.output
