"""The collection as a stranger has it: built, installed into an empty folder, used from a playbook of theirs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.pack import COLLECTION
from tests.cluster.clusters import Cluster, environment
from tests.cluster.web import CHART
from tests.embedded.lab import Played

PROGRAMS = Path(sys.executable).parent

type Run = Callable[[Mapping[str, str]], Played]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collection from its archive, and nothing else."""
    folder = tmp_path_factory.mktemp("galaxy")
    galaxy = [PROGRAMS / "ansible-galaxy", "collection"]
    bare = {"cwd": folder, "env": environment(HOME=str(folder), ANSIBLE_LOCAL_TEMP=str(folder / "tmp")), "check": True}
    subprocess.run([*galaxy, "build", COLLECTION, "--output-path", folder], capture_output=True, **bare)  # type: ignore[call-overload]
    (archive,) = folder.glob("hxmlops-mlops-*.tar.gz")
    to = ["-p", folder / "collections", "--offline", "--no-deps"]
    subprocess.run([*galaxy, "install", archive, *to], capture_output=True, **bare)  # type: ignore[call-overload]
    return folder / "collections"


@pytest.fixture
def stranger(installed: Path, tmp_path: Path, namespace: str, helm: Path) -> Run:
    """Runs a playbook that knows nothing of this repository; the cluster comes from the environment."""
    shutil.copytree(CHART, tmp_path / "site" / "my-chart")
    (tmp_path / "home").mkdir()
    tasks: list[dict[str, Any]] = [
        {"name": "Mine", "hxmlops.mlops.helm_release": {"name": "web", "chart": "my-chart", "namespace": namespace}},
        {"name": "How it is", "hxmlops.mlops.helm_release_info": {"namespace": namespace}, "register": "found"},
        {"name": "Ready?", "ansible.builtin.assert": {"that": "found.releases | selectattr('ready') | length == 3"}},
    ]
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"hxmlops_namespace": namespace},
        "roles": ["hxmlops.mlops.postgres", {"role": "hxmlops.mlops.minio", "minio_name": "store"}],
        "tasks": tasks,
    }
    (tmp_path / "site" / "play.yml").write_text(yaml.safe_dump([play]))

    def run(variables: Mapping[str, str]) -> Played:
        done = subprocess.run(
            [PROGRAMS / "ansible-playbook", tmp_path / "site" / "play.yml"],
            cwd=tmp_path,
            env=environment(
                **{
                    "HOME": str(tmp_path / "home"),
                    "PATH": f"{helm}{os.pathsep}/usr/bin{os.pathsep}/bin",
                    "ANSIBLE_COLLECTIONS_PATH": str(installed),
                    "ANSIBLE_NOCOLOR": "1",
                    "COLUMNS": "120",
                    **variables,
                }
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        return Played(done.returncode, done.stdout + done.stderr)

    return run


def test_it_holds_what_it_needs_and_nothing_of_the_repositorys(installed: Path) -> None:
    collection = installed / "ansible_collections" / "hxmlops" / "mlops"
    manifest = json.loads((collection / "MANIFEST.json").read_text())["collection_info"]
    assert manifest["dependencies"] == {}
    packed = {path.relative_to(collection).parts[0] for path in collection.rglob("*") if path.is_file()}
    assert {"plugins", "roles", "meta", "README.md"} <= packed
    assert not packed & {"tests", ".ansible"}
    assert not list(collection.rglob("__pycache__"))
    assert (collection / "roles" / "postgres" / "chart" / "charts" / "library-1.0.0.tgz").is_file()


def test_roles_and_releases_by_ansibles_own_variables_for_kubernetes(
    stranger: Run, clusters: dict[str, Cluster]
) -> None:
    staging = clusters["mno-staging"]
    cluster = {"K8S_AUTH_KUBECONFIG": str(staging.folder / "kubeconfig"), "K8S_AUTH_CONTEXT": staging.context}
    assert stranger(cluster).succeeded().changed == 3
    assert stranger(cluster).succeeded().changed == 0
    stranger({**cluster, "K8S_AUTH_CONTEXT": "nowhere"}).failed("has no context nowhere")


def test_an_account_with_a_token_in_place_of_a_kubeconfig(
    stranger: Run, clusters: dict[str, Cluster], namespace: str, tmp_path: Path
) -> None:
    staging = clusters["mno-staging"]
    staging.kubectl("create", "serviceaccount", "robot", "-n", namespace)
    staging.kubectl(
        "create", "rolebinding", "robot", "--clusterrole=admin", f"--serviceaccount={namespace}:robot", "-n", namespace
    )
    token = staging.kubectl("create", "token", "robot", "-n", namespace).strip()
    own = yaml.safe_load(staging.kubeconfig.read_text())["clusters"][0]["cluster"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(own["certificate-authority-data"]))
    cluster = {
        "K8S_AUTH_HOST": own["server"],
        "K8S_AUTH_API_KEY": token,
        "K8S_AUTH_SSL_CA_CERT": str(tmp_path / "ca.crt"),
    }
    first = stranger(cluster).succeeded()
    assert first.changed == 3
    assert stranger(cluster).succeeded().changed == 0
    assert token not in first.output
    wrong = stranger({**cluster, "K8S_AUTH_API_KEY": "wrong"})
    wrong.failed("the server does not accept these credentials (they are wrong, revoked or expired)")
    stranger({name: value for name, value in cluster.items() if name != "K8S_AUTH_SSL_CA_CERT"}).failed(
        "its certificate is not trusted"
    )


def test_its_documentation_can_be_read(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAMS / "ansible-doc", "hxmlops.mlops.helm_release", "hxmlops.mlops.modules", "-j"],
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path), ANSIBLE_COLLECTIONS_PATH=str(installed)),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert "K8S_AUTH_KUBECONFIG" in str(told["hxmlops.mlops.helm_release"]["doc"]["options"]["kubeconfig"])
