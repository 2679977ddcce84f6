"""domain_info on a real API server: what it knows of a domain, and what it says stands in the way."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.clusters import Cluster
from tests.cluster.play import Play

HOST = "mno-staging"
LABELS = ["server", "user", "namespace", "rights", "storage", "nodes", "RAPL", "helm", "clock", "certificate"]

type Result = dict[str, Any]
type Ask = Callable[..., list[Result]]


@pytest.fixture
def staging(clusters: dict[str, Cluster]) -> Cluster:
    return clusters[HOST]


@pytest.fixture
def ask(play: Play, staging: Cluster, namespace: str) -> Ask:
    """`ask({...}, {...})`: what domain_info answers to each set of arguments, all in one play on one domain."""

    def ask(*asked: dict[str, Any]) -> list[Result]:
        common = {"kubeconfig": str(staging.kubeconfig), "namespace": namespace, "modules": ["postgres"]}
        tasks = [
            {"name": "Ask", "hxmlops.mlops.domain_info": {**common, **arguments}, "ignore_errors": True}
            for arguments in asked
        ]
        played = play(tasks, "--limit", HOST).succeeded()
        assert "Traceback" not in played.output, played.output
        return played.results("domain_info")

    return ask


def found(result: Result) -> list[tuple[str, str]]:
    """(severity, what) of each finding."""
    for finding in result["findings"]:
        assert re.fullmatch(r"[^\n]+: [^\n]+[^.\n]", finding["text"]), finding["text"]
    return [(finding["severity"], finding["what"]) for finding in result["findings"]]


def text(result: Result, what: str) -> str:
    return "; ".join(finding["text"] for finding in result["findings"] if finding["what"] == what)


def test_every_domain_is_known_to_its_admin(play: Play, namespace: str, helm: Path) -> None:
    task = {
        "hxmlops.mlops.domain_info": {
            "kubeconfig": "{{ hxmlops_kubeconfig }}",
            "context": "{{ hxmlops_context }}",
            "namespace": "{{ hxmlops_namespace }}",
            "modules": ["postgres", "minio", "model_sharing"],
        }
    }
    played = play([task], "--check").succeeded()
    assert len(played.results("domain_info")) == 3
    for result in played.results("domain_info"):
        assert not result["changed"]
        assert result["findings"] == []
        assert result["reachable"]
        assert re.fullmatch(r"v1\.\d+\.\d+", result["version"])
        assert result["user"] == "kwok-admin"
        assert result["namespaces"] == [
            {"name": namespace, "exists": True, "pod_security": "restricted", "suits": True},
        ]
        assert result["missing_rights"] == []
        assert result["storage_class"] == "standard"
        assert [(node["ready"], node["rapl"]) for node in result["nodes"]] == [(True, None)], "RAPL is not guessed"
        assert result["helm"]["path"] == str(helm / "helm")
        assert abs(result["clock_skew_s"]) <= 1.5
        assert result["certificate_days"] > 300
        assert [label for label, _ in result["row"]] == LABELS
        assert dict(result["row"])["RAPL"] == "1 unknown"


def test_rights_of_the_namespace_are_enough(staging: Cluster, namespace: str, ask: Ask) -> None:
    ana = staging.user(f"ana-{namespace}", namespace)
    (result,) = ask({"kubeconfig": str(ana)})
    assert found(result) == [("warning", "certificate")], "of one day"
    assert result["user"] == f"ana-{namespace}"
    assert result["missing_rights"] == []
    assert result["namespaces"][0]["suits"]
    assert result["nodes"] is None
    assert result["storage_class"] is None
    row = dict(result["row"])
    assert (row["rights"], row["nodes"], row["RAPL"], row["storage"]) == ("ok", "?", "?", "?")


def test_rights_that_are_missing_are_named(staging: Cluster, namespace: str, ask: Ask) -> None:
    viewer = staging.user(f"vera-{namespace}", namespace, "view")
    editor = staging.user(f"ed-{namespace}", namespace, "edit")
    seen, edited, mended = ask(
        {"kubeconfig": str(viewer)},
        {"kubeconfig": str(editor), "modules": ["postgres", "prometheus"]},
        {"kubeconfig": str(viewer), "fail": False},
    )
    assert "may not create, delete, patch configmaps, persistentvolumeclaims, services, deployments" in seen["msg"]
    assert f"user vera-{namespace} may not" in seen["msg"]
    assert "prepare.yml with this user among hxmlops_deployers" in seen["msg"]
    secrets = {right["verb"] for right in seen["missing_rights"] if right["resource"] == "secrets"}
    assert secrets == {"get", "create", "patch", "delete", "list", "update"}
    # who edits may not give rights, and Prometheus has a Role of its own
    assert "patch rolebindings, roles in namespace" in edited["msg"]
    assert {right["resource"] for right in edited["missing_rights"] if right["needed"]} == {"roles", "rolebindings"}
    assert "msg" not in mended
    assert mended["missing_rights"] == seen["missing_rights"]


def test_a_namespace_that_is_not_there_or_too_lax(staging: Cluster, namespace: str, ask: Ask) -> None:
    staging.kubectl("label", "namespace", namespace, "--overwrite", "pod-security.kubernetes.io/enforce=baseline")
    missing, lax = ask({"namespace": f"{namespace}-typo"}, {})
    assert missing["msg"] == f"namespace {namespace}-typo does not exist: have an admin of the cluster run prepare.yml"
    assert missing["missing_rights"] is None, "they come with the namespace"
    assert found(lax) == [("warning", "pod_security")]
    assert "enforces Pod Security baseline, though all modules run restricted" in text(lax, "pod_security")


def test_meters_need_a_namespace_of_their_own(staging: Cluster, namespace: str, ask: Ask) -> None:
    meters = {"modules": ["postgres", "kepler"]}
    (without,) = ask(meters)
    assert without["msg"].startswith(f"namespace {namespace}-meters does not exist")
    staging.namespace(f"{namespace}-meters", "restricted")
    ana = staging.user(f"ana-{namespace}", namespace)
    strict, stranger = ask(meters, {**meters, "kubeconfig": str(ana)})
    assert ("error", "pod_security") in found(strict)
    assert "keeps meters from the node" in strict["msg"]
    assert stranger["namespaces"][1]["exists"] is None, "who has no rights there cannot know"
    assert "daemonsets" in stranger["msg"]
    assert f"in namespace {namespace}-meters" in stranger["msg"]
    staging.namespace(f"{namespace}-meters", "privileged")
    staging.user(f"ana-{namespace}", f"{namespace}-meters")
    admin, ana_again = ask(meters, {**meters, "kubeconfig": str(ana)})
    assert found(admin) == [("warning", "rapl")]
    assert "label the node hxmlops.io/rapl=true or false" in text(admin, "rapl")
    assert found(ana_again) == [("warning", "certificate")]
    assert [place["suits"] for place in ana_again["namespaces"]] == [True, True]


def test_a_server_that_cannot_be_asked_is_one_sentence(staging: Cluster, ask: Ask, tmp_path: Path) -> None:
    config = yaml.safe_load(staging.kubeconfig.read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    (tmp_path / "nobody").write_text(yaml.safe_dump(config))
    config = yaml.safe_load(staging.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "revoked"}
    (tmp_path / "revoked").write_text(yaml.safe_dump(config))
    results = ask(
        {"kubeconfig": str(tmp_path / "nobody")},
        {"kubeconfig": str(tmp_path / "revoked")},
        {"kubeconfig": str(staging.expired_certificate())},
        {"kubeconfig": str(tmp_path / "nobody"), "fail": False},
    )
    for result, words in zip(results, ("nothing listens there", "not accept", "expired on", "nothing"), strict=True):
        assert found(result) == [("error", "connection")]
        assert words in text(result, "connection")
        assert not result["reachable"]
        assert result["version"] is result["missing_rights"] is result["helm"] is None
        assert result["row"] == [["server", "unreachable"]]
        assert result.get("msg", text(result, "connection")) == text(result, "connection")
    assert ["msg" in result for result in results] == [True, True, True, False]


def test_arguments_that_are_wrong_are_said(ask: Ask) -> None:
    context, module, key = ask({"context": "mno-stagin"}, {"modules": ["postgress"]}, {"kubeconfig": "nowhere"})
    assert "has no context mno-stagin: it has mno-staging" in context["msg"]
    assert module["msg"] == "there is no module postgress: did you mean postgres?"
    assert "no kubeconfig at nowhere" in key["msg"]


def test_helm_that_is_missing_or_too_old_is_a_finding(ask: Ask, tmp_path: Path) -> None:
    old = tmp_path / "old-helm"
    old.write_text("#!/bin/sh\necho v3.9.4+gdbc6d8e\n")
    old.chmod(0o700)
    missing, outdated = ask({"binary_path": str(tmp_path / "no-helm")}, {"binary_path": str(old)})
    assert found(missing) == found(outdated) == [("error", "helm")]
    assert "install Helm 3.14" in missing["msg"]
    assert "is Helm 3.9: 3.14 or newer is needed" in outdated["msg"]
    assert outdated["helm"] is None
    assert outdated["missing_rights"] == [], "the rest is known all the same"


def test_what_the_domain_is_made_of_is_asked_for_by_default(play: Play, staging: Cluster, namespace: str) -> None:
    viewer = staging.user(f"vera-{namespace}", namespace, "view")
    task = {"hxmlops.mlops.domain_info": {"kubeconfig": str(viewer), "namespace": namespace, "fail": False}}
    asked = {}
    for modules in (None, [{"module": "postgres"}, {"module": "prometheus", "state": "absent"}]):
        given: dict[str, Any] = {} if modules is None else {"hxmlops_modules": modules}
        (result,) = play([task], "--limit", HOST, **given).succeeded().results("domain_info")
        asked[modules is None] = {right["resource"] for right in result["missing_rights"]}
    assert "roles" in asked[True], "Prometheus is of every staging domain"
    assert "roles" not in asked[False]
