"""The collection's molecule scenario, run as its users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charts.pack import COLLECTION
from tests.cluster.clusters import Cluster, environment

PROGRAMS = Path(sys.executable).parent


@pytest.mark.timeout(600)
def test_the_scenario_runs_to_its_end_and_leaves_nothing(
    clusters: dict[str, Cluster], namespace: str, helm: Path, tmp_path: Path
) -> None:
    cluster = clusters["mno-staging"]
    before = set(cluster.objects(namespace))
    collection = tmp_path / "ansible_collections" / "hxmlops" / "mlops"
    shutil.copytree(COLLECTION, collection, ignore=shutil.ignore_patterns("__pycache__", ".ansible"))
    done = subprocess.run(
        [PROGRAMS / "molecule", "test"],
        cwd=collection,
        env=environment(
            PATH=os.pathsep.join([str(PROGRAMS), str(helm), "/usr/bin", "/bin"]),
            HOME=str(tmp_path / "home"),
            HXMLOPS_NAMESPACE=namespace,
            K8S_AUTH_KUBECONFIG=str(cluster.kubeconfig),
            K8S_AUTH_CONTEXT=cluster.context,
            NO_COLOR="1",
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for step in ("converge", "idempotence", "side_effect", "verify", "destroy"):
        assert f"default > {step}: Executed: Successful" in done.stdout, done.stdout
    assert set(cluster.objects(namespace)) == before
