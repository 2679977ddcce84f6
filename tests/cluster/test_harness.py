"""The harness itself: what other tests of this folder build on is there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clusters import DOMAINS, LAST_WORDS, Cluster, CommandFailed, environment
from tests.cluster.play import BOTH_HELMS, Play


@pytest.fixture
def staging(clusters: dict[str, Cluster]) -> Cluster:
    return clusters["mno-staging"]


def pod_spec(**more: Any) -> dict[str, Any]:
    """A pod that the restricted level admits."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "docker.io/library/any:1", "securityContext": security}],
        **more,
    }


def pod(name: str, fault: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": {"hxmlops.test/fault": fault}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec()}


def workload(kind: str, **more: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec}


def test_three_domains_answer(clusters: dict[str, Cluster]) -> None:
    assert sorted(clusters) == sorted(DOMAINS)
    for cluster in clusters.values():
        assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    together = clusters["mno-staging"].folder / "kubeconfig"
    assert together.stat().st_mode & 0o777 == 0o600
    production = clusters["mno-production"].kubectl("config", "view", "-o", "json", kubeconfig=together)
    assert sorted(context["name"] for context in json.loads(production)["contexts"]) == sorted(DOMAINS)


def test_workloads_get_ready_and_jobs_end(staging: Cluster, namespace: str) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = [{"metadata": {"name": "data"}, "spec": claim}]
    job = {"template": {"spec": pod_spec(restartPolicy="Never")}}
    staging.apply(
        workload("Deployment"),
        workload("StatefulSet", serviceName="web", volumeClaimTemplates=claims),
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": job},
        namespace=namespace,
    )
    for kind in ("deployment", "statefulset"):
        staging.kubectl("rollout", "status", f"{kind}/web", "-n", namespace, "--timeout=30s")
    staging.kubectl("wait", "--for=condition=complete", "job/once", "-n", namespace, "--timeout=30s")
    phases = staging.kubectl("get", "pvc", "-n", namespace, "-o", "jsonpath={.items[*].status.phase}")
    assert phases == "Bound Bound"
    staging.kubectl("delete", "statefulset/web", "pvc/data-web-0", "pvc/data-web-1", "-n", namespace)
    staging.kubectl("wait", "--for=delete", "pv", "--all", "--timeout=30s")


def test_pod_security_is_enforced(staging: Cluster, namespace: str) -> None:
    bad = pod("bad", "none")
    bad["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted:latest"'):
        staging.apply(bad, namespace=namespace)


@pytest.mark.parametrize(
    ("fault", "reason", "event"),
    [
        ("image", "ImagePullBackOff", 'Failed to pull image "docker.io/library/any:1"'),
        ("crash", "CrashLoopBackOff", "Back-off restarting failed container"),
        ("never-ready", None, "Readiness probe failed"),
    ],
)
def test_faulty_pods_say_why(staging: Cluster, namespace: str, fault: str, reason: str | None, event: str) -> None:
    staging.apply(pod("bad", fault), namespace=namespace)
    staging.kubectl("wait", "--for=condition=Ready=False", "pod/bad", "-n", namespace, "--timeout=30s")
    status = json.loads(staging.kubectl("get", "pod/bad", "-n", namespace, "-o", "json"))["status"]
    container = status["containerStatuses"][0]
    assert not container["ready"]
    assert container["state"].get("waiting", {}).get("reason") == reason
    assert ("terminated" in container.get("lastState", {})) == (fault == "crash")
    warnings = ["events", "--types=Warning", "--for=pod/bad", "-n", namespace]
    assert event in staging.kubectl(*warnings)
    assert staging.kubectl("logs", "bad", "-n", namespace).strip() == LAST_WORDS


def test_a_failed_job(staging: Cluster, namespace: str) -> None:
    template = {"metadata": {"annotations": {"hxmlops.test/fault": "crash"}}, "spec": pod_spec(restartPolicy="Never")}
    spec = {"backoffLimit": 0, "template": template}
    staging.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "no"}, "spec": spec},
                  namespace=namespace)  # fmt: skip
    staging.kubectl("wait", "--for=condition=failed", "job/no", "-n", namespace, "--timeout=30s")


def test_rights_end_at_the_namespace(staging: Cluster, namespace: str) -> None:
    ana = staging.user("ana", namespace)
    staging.kubectl("get", "secrets", "-n", namespace, kubeconfig=ana)
    with pytest.raises(CommandFailed, match='nodes is forbidden: User "ana" cannot list resource'):
        staging.kubectl("get", "nodes", kubeconfig=ana)
    with pytest.raises(CommandFailed, match="forbidden"):
        staging.kubectl("get", "secrets", "-n", "default", kubeconfig=ana)


def test_an_expired_certificate_is_refused(staging: Cluster) -> None:
    with pytest.raises(CommandFailed, match="must be logged in to the server"):
        staging.kubectl("get", "nodes", kubeconfig=staging.expired_certificate())


def test_a_quota_is_kept(staging: Cluster, namespace: str) -> None:
    staging.quota(namespace, pods="0")
    with pytest.raises(CommandFailed, match="exceeded quota: limit"):
        staging.apply(pod("one", "none"), namespace=namespace)


def test_the_api_server_dies_and_comes_back(breakable: Cluster) -> None:
    namespace = breakable.namespace("apart")
    breakable.kill_apiserver()
    with pytest.raises(CommandFailed, match="refused"):
        breakable.kubectl("get", "namespaces", "--request-timeout=5s")
    breakable.restart_apiserver()
    breakable.apply(workload("Deployment"), namespace=namespace)
    breakable.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=100s")


@BOTH_HELMS
def test_helm_lists_releases(staging: Cluster, helm: Path) -> None:
    command = [str(helm / "helm"), "list", "-A", "-o", "json", "--kubeconfig", str(staging.kubeconfig)]
    done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    assert isinstance(json.loads(done.stdout), list)


@BOTH_HELMS
def test_plays_know_their_domain_and_helm(play: Play, helm: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "where", "ansible.builtin.debug": {"var": "hxmlops_context"}},
        {"name": "which", "ansible.builtin.command": "which helm", "changed_when": False},
        {"name": "stop", "ansible.builtin.fail": {"msg": "as told"}, "when": "hxmlops_party == 'vendor'"},
    ]
    played = play(tasks).failed("as told")
    assert {each.host: each.result["hxmlops_context"] for each in played.tasks if each.task == "where"} == {
        name: name for name in DOMAINS
    }
    assert [result["stdout"] for result in played.results("command", "mno-staging")] == [str(helm / "helm")]
    assert played.hosts["software-vendor"]["failed"] == 1
    assert played.hosts["mno-production"] == {"ok": 2, "changed": 0, "failed": 0}
    assert {each.status for each in played.tasks if each.task == "stop"} == {"failed", "skipped"}
