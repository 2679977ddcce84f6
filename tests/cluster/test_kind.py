"""playbooks/clusters.yml against stand-ins for `kind` and `docker`.

No container engine runs where these tests do, so no kind cluster can be started. Two small programs take the places of
kind and docker on the PATH: they keep clusters, nodes and images as files in a folder, answer in the form of the real
ones (kind 0.33, docker 28), and record how they were called. What is shown is what the role asks for and when, not
that a cluster comes up. That kind itself takes the role's configuration is asked of a real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.clusters import tools

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = PROJECT / "collections/ansible_collections/hxmlops/mlops/roles/clusters/files/cluster.yml"
DOMAINS = ["software-vendor", "mno-staging", "mno-production"]
OURS, POSTGRES, OTHER = "ghcr.io/hxmlops/model-server:0.1.0", "postgres:18.6", "ghcr.io/someone/else:1"

STAND_IN = """\
#!PYTHON
import json, os, pathlib, sys
import yaml

folder = pathlib.Path(__file__).resolve().parent.parent / "state"
program, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([program, *words]) + "\\n")
if (folder / f"{program}.broken").exists():
    sys.exit((folder / f"{program}.broken").read_text())


def option(name):
    return words[words.index(name) + 1]


def kubeconfig(name):
    part = {"name": f"kind-{name}", "token": (folder / "clusters" / name).read_text()}
    return {"clusters": [part], "users": [part], "contexts": [{"name": f"kind-{name}"}]}


def write(name):
    path = pathlib.Path(option("--kubeconfig"))
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    for kind, parts in kubeconfig(name).items():
        known[kind] = [each for each in known.get(kind, []) if each["name"] != parts[0]["name"]] + parts
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(known))


here = json.loads((folder / "images.json").read_text())
match [program, *words]:
    case ["kind", "version"]:
        print((folder / "kind.version").read_text(), "go1.26.8 linux/amd64")
    case ["docker", "version", *_]:
        print((folder / "docker.version").read_text())
    case ["kind", "get", "clusters"]:
        names = sorted(path.name for path in (folder / "clusters").iterdir())
        print("\\n".join(names)) if names else print("No kind clusters found.", file=sys.stderr)
    case ["kind", "create", "cluster", "--name", name, *_]:
        assert yaml.safe_load(pathlib.Path(option("--config")).read_text())["kind"] == "Cluster"
        (folder / "clusters" / name).touch(exist_ok=False)
        (folder / "clusters" / name).write_text(os.urandom(4).hex())
        (folder / "nodes" / name).write_text("[]")
        write(name)
    case ["kind", "get", "kubeconfig", "--name", name]:
        print(yaml.safe_dump(kubeconfig(name)))
    case ["kind", "export", "kubeconfig", "--name", name, *_]:
        write(name)
    case ["kind", "delete", "cluster", "--name", name, *_]:
        (folder / "clusters" / name).unlink()
        (folder / "nodes" / name).unlink()
    case ["docker", "image", "ls", *_]:
        print("\\n".join(f"{identity} {name}" for name, identity in here.items()))
    case ["docker", "exec", node, "crictl", "images", "-o", "json"]:
        path = folder / "nodes" / node.removesuffix("-control-plane")
        if not path.exists():
            sys.exit(f"Error response from daemon: No such container: {node}")
        print(json.dumps({"images": json.loads(path.read_text())}, indent=2))
    case ["kind", "load", "docker-image", "--name", name, *images]:
        loaded = json.loads((folder / "nodes" / name).read_text())
        for image in images:
            short = image.removeprefix("docker.io/library/")
            tag = image if image.split("/")[0].count(".") else f"docker.io/library/{image}"
            loaded = [each for each in loaded if tag not in each["repoTags"]]
            loaded.append({"id": here[short], "repoTags": [tag]})
        (folder / "nodes" / name).write_text(json.dumps(loaded))
    case _:
        sys.exit(f"the stand-in knows no {program} {words}")
"""


class Machine:
    """A machine with stand-ins for kind and docker, and the playbook on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.bin = folder, folder / "state", folder / "bin"
        self.kubeconfig = folder / "kube" / "config"
        for each in (self.bin, self.state / "clusters", self.state / "nodes"):
            each.mkdir(parents=True)
        for program in ("sh", "mkdir", "chmod", "rm", "sleep"):  # what Ansible needs, and no kind or docker beside it
            (self.bin / program).symlink_to(shutil.which(program) or program)
        for program, version in (("kind", "kind v0.33.0"), ("docker", "28.2.2")):
            (self.bin / program).write_text(STAND_IN.replace("PYTHON", sys.executable))
            (self.bin / program).chmod(0o755)
            (self.state / f"{program}.version").write_text(version)
        self.images({OURS: "sha256:" + "a" * 64, POSTGRES: "sha256:" + "b" * 64, OTHER: "sha256:" + "c" * 64})
        self.wanted = folder / "images.txt"
        self.wanted.write_text(f"PLAY [List the images]\n\ndocker.io/library/{POSTGRES}\nquay.io/not/here:1\n")

    def images(self, images: dict[str, str]) -> None:
        """What `docker image ls` shows: IDs by name."""
        (self.state / "images.json").write_text(json.dumps(images))

    def calls(self) -> list[list[str]]:
        """How the programs were called since this was asked last, without questions that change nothing."""
        path = self.state / "calls"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return [words for words in calls if words[1] in ("create", "delete", "export", "load")]

    def nodes(self) -> dict[str, list[str]]:
        """Image names in each cluster's node."""
        return {
            path.name: sorted(tag for each in json.loads(path.read_text()) for tag in each["repoTags"])
            for path in (self.state / "nodes").iterdir()
        }

    def run(self, *options: str, **variables: object) -> tuple[int, int, str]:
        """Run the playbook: exit code, number of changed tasks, output."""
        known = {"clusters_kubeconfig": str(self.kubeconfig), "clusters_images_file": str(self.wanted), **variables}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "KIND_")) and k != "KUBECONFIG"}
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "playbooks/clusters.yml", "-i", "localhost,",
             "-e", json.dumps(known), *options],
            cwd=PROJECT,
            env={**kept, "PATH": str(self.bin), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "120",
                 "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), "ANSIBLE_REMOTE_TEMP": str(self.folder / "tmp")},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        changed = re.search(r"changed=(\d+)", done.stdout)
        return done.returncode, int(changed[1]) if changed else 0, output


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_three_clusters_with_images_made_once_and_deleted(machine: Machine) -> None:
    code, predicted, output = machine.run("--check")
    assert (code, machine.calls(), machine.nodes()) == (0, [], {}), output
    code, changed, output = machine.run()
    assert code == 0, output
    assert changed == predicted == 2  # made, images loaded
    assert [words[4] for words in machine.calls() if words[1] == "create"] == DOMAINS
    assert machine.nodes() == {name: [f"docker.io/library/{POSTGRES}", OURS] for name in DOMAINS}
    contexts = yaml.safe_load(machine.kubeconfig.read_text())["contexts"]
    assert [each["name"] for each in contexts] == [f"kind-{name}" for name in DOMAINS]
    for options in ((), ("--check",)):
        assert machine.run(*options)[:2] == (0, 0)
        assert machine.calls() == []

    assert machine.run("--check", clusters_state="absent")[:2] == (0, 1)
    assert machine.calls() == []
    assert machine.run(clusters_state="absent")[:2] == (0, 1)
    assert machine.nodes() == {}
    assert machine.run(clusters_state="absent")[:2] == (0, 0)


def test_only_what_differs_is_done(machine: Machine) -> None:
    names = DOMAINS[:2]
    machine.run(clusters_names=names, clusters_images_file="")
    machine.calls()
    images = json.loads((machine.state / "images.json").read_text())

    machine.images({**images, OURS: "sha256:" + "d" * 64})  # built again
    assert machine.run(clusters_names=names, clusters_images_file="")[:2] == (0, 1)
    assert machine.calls() == [["kind", "load", "docker-image", "--name", name, OURS] for name in names]

    known = yaml.safe_load(machine.kubeconfig.read_text())
    known["clusters"][1]["token"] = "of a cluster before this one"  # noqa: S105 - of a stand-in
    machine.kubeconfig.write_text(yaml.safe_dump(known))
    code, predicted, _ = machine.run("--check", clusters_names=names, clusters_images_file="")
    assert (code, predicted, machine.calls()) == (0, 1, [])
    assert machine.run(clusters_names=names, clusters_images_file="")[:2] == (0, 1)
    assert [words[:5] for words in machine.calls()] == [["kind", "export", "kubeconfig", "--name", names[1]]]

    assert machine.run(clusters_images_file="")[:2] == (0, 2)  # the third cluster, and its images
    assert [words[1] for words in machine.calls()] == ["create", "load"]


def _gone(machine: Machine, program: str) -> None:
    (machine.bin / program).unlink()


def _old(machine: Machine, program: str) -> None:
    (machine.state / f"{program}.version").write_text("0.8.1")


def _broken(machine: Machine, program: str) -> None:
    words = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    (machine.state / f"{program}.broken").write_text(words)


@pytest.mark.parametrize(
    ("program", "spoil", "words"),
    [
        ("kind", _gone, "kind is not on the PATH. Install 0.27.0 or newer: https://kind.sigs.k8s.io"),
        ("kind", _old, "kind 0.8.1 is too old. Install 0.27.0 or newer: https://kind.sigs.k8s.io"),
        ("docker", _gone, "docker is not on the PATH. Install 20.10.0 or newer: https://docs.docker.com"),
        ("docker", _old, "docker 0.8.1 is too old. Install 20.10.0 or newer"),
        ("docker", _broken, "docker does not run, or not for you: Cannot connect to the Docker daemon"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_one_message_says_what_is_wrong(machine: Machine, program: str, spoil: object, words: str) -> None:
    assert callable(spoil)
    spoil(machine, program)
    for options in ((), ("--check",)):
        code, changed, output = machine.run(*options)
        assert (code, changed, machine.calls()) == (2, 0, [])
        assert words in re.sub(r"\s+", " ", output), output
        assert output.count("[ERROR]") == 1, output


def test_kind_itself_takes_the_configuration(machine: Machine) -> None:
    """Kind decodes strictly, and refuses unknown fields, before it asks for the engine, which is missing here."""
    kind = str(tools()["kind"] / "kind")
    environment = {"PATH": str(machine.folder), "HOME": str(machine.folder)}
    said = {}
    for name, text in (("right", CONFIG.read_text()), ("wrong", CONFIG.read_text().replace("nodes:", "nods:"))):
        (machine.folder / name).write_text(text)
        command = [kind, "create", "cluster", "--name", "x", "--config", str(machine.folder / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said[name] = done.stderr
    assert "unable to decode config" in said["wrong"]
    assert "unable to decode config" not in said["right"]
