"""What is known of a domain, and which rights modules take, without a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain_facts import DEFAULT_CLASS, RAPL, rights, survey
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import KubeError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import Access
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._modules import known, module

NODES = "/api/v1/nodes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


class Server:
    """An API server that answers from a mapping of paths, allows everything, and forbids what is not in it."""

    access = Access(where="context a", server="https://a.example")

    def __init__(self, answers: Mapping[str, Any] | None = None, ahead_s: float = 0.0) -> None:
        self.answers = {"/api/v1/namespaces/mlops": None, **(answers or {})}
        self.ahead_s = ahead_s

    def version(self) -> str:
        return "v1.36.3"

    def date(self) -> str:
        return formatdate(time.time() + self.ahead_s, usegmt=True)

    def get(self, path: str) -> Any:
        if path not in self.answers:
            raise KubeError(f"{path} is forbidden", 403, "Forbidden")
        return self.answers[path]

    list = get

    def create(self, *_: Any) -> Any:
        return {"status": {"allowed": True, "userInfo": {"username": "ana"}}}


def facts(answers: Mapping[str, Any] | None = None, *modules: str, ahead_s: float = 0.0) -> Any:
    """What is known of a domain whose server gives these answers; helm is missing."""
    server: Any = Server(answers, ahead_s)
    return survey(server, "mlops", [module(name) for name in modules], "/no/helm")


def text(found: Any, what: str) -> str:
    return "; ".join(finding.text for finding in found.findings if finding.what == what)


def node(name: str, rapl: str | None = None, ready: str = "True") -> dict[str, Any]:
    labels = {} if rapl is None else {RAPL: rapl}
    status = {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"kubeletVersion": "v1.36.3"}}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def storage_class(name: str, since: str, default: str | None) -> dict[str, Any]:
    annotations = {} if default is None else {DEFAULT_CLASS: default}
    return {"metadata": {"name": name, "creationTimestamp": since, "annotations": annotations}}


def test_what_may_not_be_read_is_unknown_and_no_finding() -> None:
    found = facts({"/api/v1/namespaces/mlops": {"metadata": {}}})
    assert [finding.what for finding in found.findings] == ["pod_security", "helm"]
    assert found.nodes is found.storage_class is found.certificate_days is None
    assert found.missing_rights == []
    row = dict(found.result()["row"])
    assert (row["nodes"], row["RAPL"], row["storage"], row["certificate"]) == ("?", "?", "?", "-")
    assert (row["helm"], row["namespace"]) == ("missing", "mlops (no level)")


def test_rapl_is_what_the_label_says() -> None:
    nodes = [node("a", "true"), node("b", "false"), node("c"), node("d", "perhaps"), node("e")]
    found = facts({NODES: nodes}, "scaphandre")
    assert [entry["rapl"] for entry in found.nodes] == [True, False, None, None, None]
    assert "node b, c, d and 1 more has RAPL" in text(found, "rapl")
    assert dict(found.result()["row"])["RAPL"] == "3 unknown, 1 yes, 1 no"
    assert not text(facts({NODES: nodes}, "postgres"), "rapl"), "no matter without meters"
    assert not text(facts({NODES: nodes[:1]}, "kepler"), "rapl")


def test_nodes_that_are_not_ready_are_named() -> None:
    assert text(facts({NODES: [node("a"), node("b", ready="False")]}), "nodes").startswith("not ready: node b:")
    assert text(facts({NODES: [node("a", ready="Unknown")]}), "nodes").startswith("no node is ready")


def test_of_several_default_classes_the_newest_counts() -> None:
    classes = [
        storage_class("old", "2026-01-01T00:00:00Z", "true"),
        storage_class("new", "2026-02-01T00:00:00Z", "true"),
        storage_class("other", "2026-03-01T00:00:00Z", "false"),
    ]
    assert facts({CLASSES: classes}).storage_class == "new"
    without = facts({CLASSES: classes[2:]})
    assert without.storage_class is None
    assert "no StorageClass is the default (there are: other)" in text(without, "storage_class")


@pytest.mark.parametrize(("ahead_s", "words"), [(0, ""), (4, ""), (60, "60 s ahead of"), (-3600, "3600 s behind")])
def test_clocks_that_differ_are_said(ahead_s: float, words: str) -> None:
    found = facts(ahead_s=ahead_s)
    assert abs(found.clock_skew_s - ahead_s) <= 1
    assert words in text(found, "clock")
    assert bool(words) == bool(text(found, "clock"))


def test_kinds_that_prepare_makes_are_missed() -> None:
    workflows = {"resources": [{"name": "workflows"}, {"name": "workflows/status"}]}
    found = facts({"/apis/argoproj.io/v1alpha1": workflows, "/apis/kubeflow.org/v1beta1": None}, "kubeflow_pipelines")
    assert "kubeflow_pipelines (workflowtemplates.argoproj.io, cronworkflows.argoproj.io" in text(found, "kinds")
    assert "run prepare.yml" in text(found, "kinds")


def test_every_module_takes_rights_in_its_own_namespace() -> None:
    for name in known():
        chosen = module(name)
        asked = rights("mlops", [chosen])
        assert asked == sorted(set(asked))
        needed = {(right.namespace, right.resource) for right in asked if right.needed}
        assert (chosen.namespace("mlops"), "services") in needed
        assert (("mlops-meters", "daemonsets") in needed) == (name in ("kepler", "scaphandre"))
        assert (("mlops", "rolebindings") in needed) == (name in ("kubeflow_pipelines", "prometheus"))
        assert any(right.group == "argoproj.io" for right in asked) == (name == "kubeflow_pipelines")


def test_a_subresource_is_asked_for_as_one() -> None:
    logs = next(right for right in rights("mlops", []) if right.resource == "pods/log")
    assert not logs.needed
    assert logs.review()["spec"]["resourceAttributes"] == {
        "namespace": "mlops",
        "group": "",
        "verb": "get",
        "resource": "pods",
        "subresource": "log",
    }
