"""Faults: each is told in one sentence that says what to do, and leaves a state that the next run mends.

Those of a run itself (killed, terminated, two at once, a killed helm) are in test_engine.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.clusters import LAST_WORDS, Cluster
from tests.cluster.play import Play, release
from tests.cluster.web import BAD_HOOK, helm_at, slow, until, web

HOST = "mno-staging"
ALONE = ("--limit", HOST)
SENTENCE = 700  # characters: what fits into a few lines of a terminal

type Result = dict[str, Any]


@pytest.fixture
def staging(clusters: dict[str, Cluster]) -> Cluster:
    return clusters[HOST]


def told(result: Result) -> str:
    """The message of a failed task: one line, not long, and nothing of a programmer's in it."""
    words = str(result["msg"])
    assert len(words) < SENTENCE, words
    assert "\n" not in words
    assert not re.search(r"Traceback|Errno|<[a-z_.]+ object|panic:|goroutine|b'", words), words
    return words


def fails(play: Play, *tasks: dict[str, Any], env: dict[str, str] | None = None) -> list[str]:
    """What each task said as it failed, all in one play."""
    played = play(tasks, *ALONE, env=env).succeeded()  # each is ignored, so that the next comes
    assert "Traceback" not in played.output, played.output
    results = [each for each in played.tasks if each.action.endswith("helm_release")]
    assert [each.status for each in results] == ["ignored"] * len(tasks), played.output
    return [told(each.result) for each in results]


def mends(play: Play, *, by: str, **wanted: Any) -> None:
    """The next run does what is left to do, by one action, and the one after it finds nothing."""
    recover = by == "recover"
    played = play([release(recover=recover, **wanted), release(**wanted)], *ALONE).succeeded()
    mended, again = played.results("helm_release")
    assert [each["action"] for each in mended["releases"]] == [by]
    assert [each["action"] for each in again["releases"]] == ["none"]
    assert not again["changed"]


# -- the cluster is not to be reached, or does not want us -------------------------------------------------------------


def test_ways_not_to_get_to_a_cluster(
    play: Play, clusters: dict[str, Cluster], staging: Cluster, namespace: str, tmp_path: Path
) -> None:
    good = yaml.safe_load(staging.kubeconfig.read_text())

    def kubeconfig(name: str, text: str) -> dict[str, str]:
        (tmp_path / name).write_text(text)
        return {"kubeconfig": str(tmp_path / name)}

    def cluster(name: str, **changes: str) -> dict[str, str]:
        changed = {**good, "clusters": [{"name": HOST, "cluster": {**good["clusters"][0]["cluster"], **changes}}]}
        return kubeconfig(name, yaml.safe_dump(changed))

    others = yaml.safe_load(clusters["mno-production"].kubeconfig.read_text())["clusters"][0]["cluster"]
    faults: dict[str, dict[str, Any]] = {
        "has no context nowhere: it has mno-staging": {"context": "nowhere"},
        "no kubeconfig at /nowhere/config: set hxmlops_kubeconfig": {"kubeconfig": "/nowhere/config"},
        f"kubeconfig {tmp_path / 'garbage'} is no YAML": kubeconfig("garbage", "clusters: [\x07"),
        f"kubeconfig {tmp_path / 'letter'} is no kubeconfig": kubeconfig("letter", "Dear Ana,"),
        "its client certificate expired on ": {"kubeconfig": str(staging.expired_certificate())},
        "its certificate is not trusted": cluster(
            "other-ca", **{"certificate-authority-data": others["certificate-authority-data"]}
        ),
        "nothing listens there: start the API server": cluster("down", server="https://127.0.0.1:1"),
        "this host name is not known here: check the kubeconfig, DNS or VPN": cluster(
            "unknown", server="https://cluster.invalid"
        ),
        "ask an admin of the cluster for this right": {"kubeconfig": str(staging.user("eve", namespace, "view"))},
        f"there is no namespace {namespace}-other: prepare.yml makes it": {"namespace": f"{namespace}-other"},
    }
    for words, said in zip(
        faults, fails(play, *(release(fails=True, **web(), **wrong) for wrong in faults.values())), strict=True
    ):
        assert words in said
        assert HOST in said or "kubeconfig" in said  # where
    mends(play, by="install", **web())


def test_a_playbook_says_so_too(play: Play) -> None:
    play.hosts[HOST]["hxmlops_context"] = "nowhere"
    for playbook in ("prepare", "deploy", "teardown", "module"):
        play(playbook, *ALONE, hxmlops_module="postgres", hxmlops_action="status").failed("has no context nowhere")


# -- helm is not there, or not as it should be -------------------------------------------------------------------------


def test_helm_is_missing_too_old_or_something_else(play: Play, tmp_path: Path) -> None:
    def program(name: str, script: str) -> dict[str, str]:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        return {"binary_path": str(tmp_path / name)}

    faults: dict[str, dict[str, Any]] = {
        "no /nowhere/helm here: install Helm 3.14 or newer on the controller": {"binary_path": "/nowhere/helm"},
        "is Helm 3.9: 3.14 or newer is needed": program("old", "echo v3.9.0+g7ceeda6"),
        "says it is 'hello': that is no Helm": program("other", "echo hello"),
        "does not run": program("broken", "exit 7"),
    }
    for words, said in zip(
        faults, fails(play, *(release(fails=True, **web(), **wrong) for wrong in faults.values())), strict=True
    ):
        assert words in said
    (said,) = fails(play, release(fails=True, **web()), env={"PATH": "/usr/bin:/bin"})
    assert "no helm here: install Helm 3.14 or newer on the controller, or name the program" in said
    mends(play, by="install", **web())


# -- what is asked for is wrong ----------------------------------------------------------------------------------------


def test_values_that_cannot_be(play: Play, tmp_path: Path) -> None:
    broken = tmp_path / "values.yml"
    broken.write_text("message: hello\nreplicas: [1\nimage: web\n")
    (syntax, wrong_type, unknown) = fails(
        play,
        release(fails=True, **web(), values_files=[str(broken)]),
        release(fails=True, **web(replicas="many")),
        release(fails=True, **web(repliacs=2)),
    )
    assert f"release web: values file {broken}:3:6: " in syntax
    for said, words in ((wrong_type, "replicas"), (unknown, "repliacs")):
        assert "web: values don't meet the specifications of the schema" in said
        assert words in said
    mends(play, by="install", **web(replicas=2))


# -- pods do not get ready ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"image": "nowhere.invalid/web:1"}, "ImagePullBackOff"),
        ({"pod": {"hxmlops.test/fault": "never-ready"}}, "last event Unhealthy: Readiness probe failed"),
        ({"pod": {"hxmlops.test/fault": "crash"}}, "CrashLoopBackOff"),
    ],
    ids=["wrong image", "never ready", "crash"],
)
def test_a_pod_that_does_not_get_ready_says_why(play: Play, fault: dict[str, Any], words: str) -> None:
    for said in fails(play, *[release(fails=True, **{**web(**fault), "timeout_s": 2})] * 2):  # the second: no better
        assert re.match(r"web: Deployment web 0 of 1 ready within 2 s: pod web-\w+-\w+: ", said)
        assert words in said
        if "image" not in fault:
            assert f"its log ends: {LAST_WORDS}" in said
    mends(play, by="upgrade", **web())


def test_a_quota_is_exceeded(play: Play, staging: Cluster, namespace: str) -> None:
    staging.quota(namespace, pods="0")
    (said,) = fails(play, release(fails=True, **{**web(), "timeout_s": 2}))
    assert "web: Deployment web 0 of 1 ready within 2 s: " in said
    assert "exceeded quota: limit" in said
    staging.kubectl("delete", "resourcequota/limit", "-n", namespace)
    mends(play, by="wait", **web())


# -- helm fails half-way -----------------------------------------------------------------------------------------------


def test_a_hook_fails(play: Play) -> None:
    failed, refused = fails(play, release(fails=True, **web(hook=BAD_HOOK)), release(fails=True, **web()))
    assert "web-before" in failed
    assert f"its log ends: {LAST_WORDS}" in failed
    assert "revision 1 is failed since" in refused
    assert "run again with recover: true (hxmlops_recover=true)" in refused
    mends(play, by="recover", **web())


def test_a_hook_takes_longer_than_told(play: Play) -> None:
    (said,) = fails(play, release(fails=True, **{**slow(600), "timeout_s": 2}))
    assert "web-before" in said or "pre-install" in said
    mends(play, by="recover", **web())


def test_a_release_is_stuck_in_an_upgrade_of_somebody_else(play: Play, staging: Cluster, namespace: str) -> None:
    play([release(**web())], *ALONE).succeeded()
    staging.kubectl(
        "label", "secret/sh.helm.release.v1.web.v1", "status=pending-upgrade", "--overwrite", "-n", namespace
    )
    (said,) = fails(play, release(fails=True, **web(message="hi")))
    assert re.search(r"web: revision 1 is pending-upgrade since 20\S+Z: another helm works on it, or was killed", said)
    mends(play, by="recover", **web(message="hi"))


def test_the_api_server_dies_in_an_upgrade(breakable: Cluster, helm: Path, tmp_path: Path) -> None:
    namespace = breakable.namespace("dying")
    play = Play(tmp_path, {HOST: breakable}, namespace, helm)
    play([release(**web())]).succeeded()
    running = play.start([release(**{**slow(600, message="hi"), "timeout_s": 10})])
    helm_at(breakable, namespace, 2, "pending-upgrade")
    hook = ("get", "job/web-before", "-n", namespace, "-o", "name", "--ignore-not-found")
    until(lambda: breakable.kubectl(*hook) or None, "the hook")
    breakable.kill_apiserver()
    failed = play.finish(running, timeout=90).failed("nothing listens there: start the API server")
    assert "pre-upgrade" in told(failed.results("helm_release")[0])
    assert "nothing listens there" in fails(play, release(fails=True, **web(message="hi")))[0]
    breakable.restart_apiserver()
    assert "revision 2 is pending-upgrade since" in fails(play, release(fails=True, **web(message="hi")))[0]
    mends(play, by="recover", **web(message="hi"))


# -- this machine ------------------------------------------------------------------------------------------------------


def test_the_folder_for_locks_is_not_ours_alone(play: Play, tmp_path: Path) -> None:
    (tmp_path / f"hxmlops-{os.getuid()}").mkdir()
    (tmp_path / f"hxmlops-{os.getuid()}").chmod(0o777)
    (said,) = fails(play, release(fails=True, **web()), env={"TMPDIR": str(tmp_path)})
    assert "is not this user's own folder: remove it, or set TMPDIR" in said
    mends(play, by="install", **web())
