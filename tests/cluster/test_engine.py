"""helm_release on a real API server: what it finds to do, says before, does, and says afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clusters import LAST_WORDS, Cluster
from tests.cluster.play import BOTH_HELMS, CLUSTER, Play, release
from tests.cluster.web import BAD_HOOK, CHART, GONE, helm_at, helms, slow, web

HOST = "mno-staging"
ALONE = ("--limit", HOST)

type Result = dict[str, Any]
type Run = Callable[..., list[Result]]


@pytest.fixture
def staging(clusters: dict[str, Cluster]) -> Cluster:
    return clusters[HOST]


@pytest.fixture
def run(play: Play) -> Run:
    """`run(task, task)`: what the tasks of helm_release answered, all in one play on one domain."""

    def run(*tasks: Mapping[str, Any], **variables: Any) -> list[Result]:
        played = play(tasks, *ALONE, **variables).succeeded()
        assert "Traceback" not in played.output, played.output
        return played.results("helm_release")

    return run


def records(result: Result) -> list[tuple[str, str, bool]]:
    """(name, action, changed) of each release of a task."""
    return [(each["name"], each["action"], each["changed"]) for each in result["releases"]]


def actions(result: Result) -> dict[str, str]:
    return {each["name"]: each["action"] for each in result["releases"]}


def reason(result: Result) -> str:
    """Why the task failed."""
    assert "msg" in result, result
    return str(result["msg"])


# -- one release, from install to absent -------------------------------------------------------------------------------


@BOTH_HELMS
def test_each_step_is_foretold_exactly_and_done_once(run: Run, staging: Cluster, namespace: str) -> None:
    steps = [(web(), "install"), (web(message="hi"), "upgrade"), (GONE, "uninstall")]
    for wanted, action in steps:
        before = staging.objects(namespace)
        (foretold,) = run(release(check_mode=True, **wanted))
        assert staging.objects(namespace) == before
        done, again = run(release(**wanted), release(**wanted))
        assert records(foretold) == records(done) == [("web", action, True)]
        assert foretold["diff"] == done["diff"]
        assert records(again) == [("web", "none", False)]
        assert not again["changed"]
        assert again["diff"] == []
    assert not any("web" in name for name in staging.objects(namespace))


@BOTH_HELMS
def test_the_diff_shows_what_changes(run: Run) -> None:
    installed, upgraded = run(release(**web()), release(check_mode=True, **web(message="hi")))
    (first,), (second,) = installed["diff"], upgraded["diff"]
    assert first["before"] == ""
    assert "message: hello" in first["after"]
    changed = [line.strip() for line in second["after"].splitlines() if line not in second["before"].splitlines()]
    assert changed == ["message: hi"]
    assert second["before_header"].endswith("/web (revision 1)")
    assert second["after_header"].endswith("/web (upgrade)")


@BOTH_HELMS
def test_a_rollback_goes_to_a_revision_once(run: Run, staging: Cluster, namespace: str) -> None:
    run(release(**web()), release(**web(message="hi")))
    back: dict[str, Any] = {"name": "web", "state": "rolled_back", "revision": 1}
    foretold, done, again, forth, unknown = run(
        release(check_mode=True, **back),
        release(**back),
        release(**back),
        release(**web(message="hi")),
        release(fails=True, **{**back, "revision": 9}),
    )
    assert records(foretold) == records(done) == [("web", "rollback", True)]
    assert foretold["diff"] == done["diff"]
    assert [each["releases"][0]["revision"] for each in (done, again, forth)] == [3, 3, 4]
    assert records(again) == [("web", "none", False)]
    assert records(forth) == [("web", "upgrade", True)]
    assert "it has no revision 9 to go back to: its revisions are 1, 2, 3, 4" in reason(unknown)
    assert staging.objects(namespace)["ConfigMap/web"]["data"] == {"message": "hi"}


# -- many releases -----------------------------------------------------------------------------------------------------


def test_what_others_need_comes_first_and_goes_last(run: Run, staging: Cluster, namespace: str) -> None:
    both = [web("front", needs=["base"]), web("base", pod={"hxmlops.test/delay": "2s"})]
    (done,) = run(release(releases=both))
    assert records(done) == [("front", "install", True), ("base", "install", True)]
    (pod,) = json.loads(staging.kubectl("get", "pods", "-l", "app=base", "-n", namespace, "-o", "json"))["items"]
    (ready,) = (each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    front = staging.objects(namespace)["Deployment/front"]["metadata"]["creationTimestamp"]
    assert front >= ready["lastTransitionTime"]
    (gone,) = run(release(concurrency=1, releases=[{**each, "state": "absent"} for each in reversed(both)]))
    assert records(gone) == [("base", "uninstall", True), ("front", "uninstall", True)]


def test_the_others_run_side_by_side(run: Run, staging: Cluster, namespace: str) -> None:
    hook = {"hxmlops.test/delay": "4s"}
    run(release(concurrency=3, releases=[web(name, hook=hook) for name in ("one", "two", "three")]))
    jobs = json.loads(staging.kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"]
    begun = [job["metadata"]["creationTimestamp"] for job in jobs]
    ended = [job["status"]["completionTime"] for job in jobs]
    assert len(jobs) == 3
    assert max(begun) <= min(ended)


@pytest.mark.parametrize(
    ("on_failure", "independent", "told"),
    [("stop", "skipped", "not begun: another release failed"), ("continue", "install", "")],
)
def test_after_a_failure(run: Run, on_failure: str, independent: str, told: str) -> None:
    releases = [web("bad", hook=BAD_HOOK), web("after", needs=["bad"]), web("apart")]
    failed, mended = run(
        release(fails=True, concurrency=1, on_failure=on_failure, releases=releases),
        release(recover=True, releases=[web("bad"), *releases[1:]]),
    )
    assert actions(failed) == {"bad": "install", "after": "skipped", "apart": independent}
    assert [each["failed"] for each in failed["releases"]] == [True, True, False]
    assert [each["reason"] for each in failed["releases"]][1:] == ["not begun: bad failed", told]
    assert "failed pre-install" in reason(failed)
    assert f"its log ends: {LAST_WORDS}" in reason(failed)
    assert actions(mended)["bad"] == "recover"


def test_mistakes_are_told_before_anything_runs(run: Run, tmp_path: Path, staging: Cluster, namespace: str) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("message: hello\nreplicas: [1\n")
    mistakes: list[tuple[str, list[dict[str, Any]]]] = [
        ("release web needs bsae, which is not in the list: did you mean base?", [web(needs=["bsae"]), web("base")]),
        ("releases need each other in a circle: ", [web(needs=["base"]), web("base", needs=["web"])]),
        ("release web stands twice in the list", [web(), web(message="hi")]),
        ("release web: no chart at /nowhere/chart", [{**web(), "chart": "/nowhere/chart"}]),
        ("release web: no chart is given", [{"name": "web"}]),
        ("release name 'Web': use at most 53 lower-case letters", [web("Web")]),
        (f"release web: values file {broken}:3:1", [{**web(), "values_files": [str(broken)]}]),
        ("values file /nowhere/values.yml: No such file", [{**web(), "values_files": ["/nowhere/values.yml"]}]),
        ("web: values don't meet the specifications of the schema", [web("other"), web(replicas=-1)]),
        ("release web needs base, which is to be absent", [web(needs=["base"]), {**web("base"), "state": "absent"}]),
        (
            "release web: chart oci://registry.invalid/web needs a version",
            [{**web(), "chart": "oci://registry.invalid/web"}],
        ),
    ]
    told = run(*(release(fails=True, releases=releases) for _, releases in mistakes))
    for (words, _), result in zip(mistakes, told, strict=True):
        assert words in reason(result)
    assert not staging.objects(namespace).keys() & {"ConfigMap/web", "ConfigMap/other", "ConfigMap/base"}
    assert not [name for name in staging.objects(namespace) if "sh.helm" in name]


# -- what others did meanwhile -----------------------------------------------------------------------------------------


@BOTH_HELMS
def test_an_upgrade_by_hand_is_seen_and_put_right(
    run: Run, play: Play, helm: Path, staging: Cluster, namespace: str
) -> None:
    run(release(**web()))
    by_hand = ["upgrade", "web", str(CHART), "--reuse-values", "--set", "message=by hand", "-n", namespace]
    subprocess.run([helm / "helm", *by_hand, "--kubeconfig", str(staging.kubeconfig)],
                   env=play.environment(), check=True, capture_output=True)  # fmt: skip
    foretold, done, again = run(release(check_mode=True, **web()), release(**web()), release(**web()))
    assert records(foretold) == records(done) == [("web", "upgrade", True)]
    assert records(again) == [("web", "none", False)]
    assert staging.objects(namespace)["ConfigMap/web"]["data"] == {"message": "hello"}


@BOTH_HELMS
def test_drift_is_ignored_reported_or_repaired_as_asked(run: Run, staging: Cluster, namespace: str) -> None:
    run(release(**web()))
    staging.kubectl("delete", "configmap/web", "-n", namespace)
    staging.kubectl("scale", "deployment/web", "--replicas=3", "-n", namespace)
    staging.kubectl("label", "deployment/web", "mine=yes", "-n", namespace)  # a field that the release does not have
    drift = ["ConfigMap web is missing", "Deployment web: spec.replicas is 3, the release has 1"]
    ignored, reported, foretold, repaired, again = run(
        release(**web()),
        release(drift="report", **web()),
        release(drift="repair", check_mode=True, **web()),
        release(drift="repair", **web()),
        release(drift="repair", **web()),
    )
    assert records(ignored) == records(reported) == records(again) == [("web", "none", False)]
    assert "drift" not in ignored["releases"][0]
    assert reported["releases"][0]["drift"] == foretold["releases"][0]["drift"] == drift
    assert records(foretold) == records(repaired) == [("web", "repair", True)]
    assert "drift" not in again["releases"][0]
    now = staging.objects(namespace)
    assert now["ConfigMap/web"]["data"] == {"message": "hello"}
    assert now["Deployment/web"]["spec"]["replicas"] == 1
    assert now["Deployment/web"]["metadata"]["labels"]["mine"] == "yes"


# -- what went wrong before --------------------------------------------------------------------------------------------


@BOTH_HELMS
def test_a_failed_release_is_mended_only_when_asked(run: Run) -> None:
    first, refused, foretold, mended, again, worse, better = run(
        release(fails=True, **web(hook=BAD_HOOK)),
        release(fails=True, **web()),
        release(check_mode=True, recover=True, **web()),
        release(recover=True, **web()),
        release(**web()),
        release(fails=True, **web(hook=BAD_HOOK)),
        release(recover=True, **web(message="hi")),
    )
    assert "failed pre-install" in reason(first)
    assert "revision 1 is failed since " in reason(refused)
    assert "run again with recover: true (hxmlops_recover=true)" in reason(refused)
    assert records(refused) == [("web", "refused", False)]
    assert records(foretold) == records(mended) == [("web", "recover", True)]
    assert records(again) == [("web", "none", False)]
    assert "pre-upgrade hooks failed" in reason(worse)
    assert records(better) == [("web", "recover", True)]


@BOTH_HELMS
def test_a_killed_helm_leaves_a_pending_revision_that_recover_mends(
    run: Run, play: Play, staging: Cluster, namespace: str
) -> None:
    run(release(**web()))
    running = play.start([release(**slow(60, message="hi"))], *ALONE)
    os.kill(helm_at(staging, namespace, 2, "pending-upgrade"), signal.SIGKILL)
    play.finish(running).failed("web: helm was killed by signal 9")
    wanted = web(message="hi")
    refused, mended, again = run(release(fails=True, **wanted), release(recover=True, **wanted), release(**wanted))
    assert "revision 2 is pending-upgrade since " in reason(refused)
    assert records(mended) == [("web", "recover", True)]
    assert records(again) == [("web", "none", False)]
    assert staging.objects(namespace)["ConfigMap/web"]["data"] == {"message": "hi"}


# -- Secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_keep_their_values(run: Run, play: Play, staging: Cluster, namespace: str) -> None:
    def auth(**data: dict[str, Any]) -> dict[str, Any]:
        keys = {"username": {"default": "hx"}, "password": {"generate": 20}, **data}
        return {**web(), "secrets": [{"name": "web-auth", "data": keys}]}

    foretold, first, again = run(release(check_mode=True, **auth()), release(**auth()), release(**auth()))
    made = staging.secret("web-auth", namespace)
    assert foretold["releases"][0]["secrets"] == first["releases"][0]["secrets"] == ["web-auth"]
    assert records(again) == [("web", "none", False)]
    assert made["username"] == "hx"
    assert len(made["password"]) == 20

    (foretold, more) = run(
        release(check_mode=True, **auth(token={"generate": 8})), release(**auth(token={"generate": 8}))
    )
    assert records(foretold) == records(more) == [("web", "secrets", True)]
    grown = staging.secret("web-auth", namespace)
    assert {**grown, "token": ""} == {**made, "token": ""}
    assert len(grown["token"]) == 8

    other = play([release(**auth(password={"value": "another-one"}))], *ALONE).succeeded()
    words = "release web: Secret web-auth/password differs from the value given and was left as it is"
    assert words in " ".join(other.output.split())
    assert words in other.results("helm_release")[0]["releases"][0]["warnings"][0]
    assert other.changed == 0
    run(release(**GONE))
    assert staging.secret("web-auth", namespace) == grown
    run(release(**{**auth(), "state": "absent", "delete_data": True}))
    assert "Secret/web-auth" not in staging.objects(namespace)


def test_a_secret_that_a_person_made_is_left_alone(run: Run, staging: Cluster, namespace: str) -> None:
    staging.kubectl("create", "secret", "generic", "web-auth", "--from-literal=password=mine", "-n", namespace)
    (done,) = run(release(**web(), secrets=[{"name": "web-auth", "data": {"password": {"generate": 20}}}]))
    assert "secrets" not in done["releases"][0]
    assert staging.secret("web-auth", namespace) == {"password": "mine"}


# -- runs that end early, and two at once ------------------------------------------------------------------------------


def test_a_terminated_run_leaves_no_helm_and_the_next_goes_on(
    run: Run, play: Play, staging: Cluster, namespace: str
) -> None:
    running = play.start([release(**slow(60))], *ALONE)
    helm_at(staging, namespace, 1, "pending-install")
    running.terminate()
    ended = play.finish(running, timeout=30)
    assert ended.code != 0
    assert "Traceback" not in ended.output
    assert helms(namespace) == {}
    mended, again = run(release(recover=True, **web()), release(**web()))
    assert records(mended) == [("web", "recover", True)]
    assert records(again) == [("web", "none", False)]


@BOTH_HELMS
def test_the_helm_of_a_killed_run_is_waited_for_and_its_work_adopted(
    run: Run, play: Play, staging: Cluster, namespace: str
) -> None:
    running = play.start([release(**slow(12))], *ALONE)
    helm_at(staging, namespace, 1, "pending-install")
    running.kill()
    running.communicate()
    told = play([release(**slow(12))], *ALONE).succeeded()
    assert f"web: waits for the work of a killed run (process {running.pid})" in told.output
    (adopted,) = told.results("helm_release")
    assert records(adopted) == [("web", "adopt", False)]
    assert adopted["releases"][0]["revision"] == 1
    assert records(run(release(**slow(12)))[0]) == [("web", "none", False)]


def test_of_two_runs_at_once_the_second_says_who_is_at_work(play: Play, staging: Cluster, namespace: str) -> None:
    first = play.start([release(**slow(12))], *ALONE)
    helm_at(staging, namespace, 1, "pending-install")
    second = play([release(**slow(12))], *ALONE)
    second.failed(f"web: another run (process {first.pid}) works on it: wait for it to end, or stop it with: kill")
    ended = play.finish(first).succeeded()
    assert "s: web: helm install" in ended.output  # the line of progress, each five seconds
    assert ended.changed == 1


# -- how releases are --------------------------------------------------------------------------------------------------


def test_info_tells_how_releases_are(play: Play) -> None:
    info = {"hxmlops.mlops.helm_release_info": CLUSTER}
    one = {"hxmlops.mlops.helm_release_info": {**CLUSTER, "name": "nobody"}}
    bad = web("bad", pod={"hxmlops.test/fault": "crash"})
    played = play(
        [
            release(**web(password="correct-horse")),  # noqa: S106 - looked for below
            release(**web(message="hi", password="correct-horse")),  # noqa: S106
            release(**bad, wait=False),
            info,
            one,
        ],
        *ALONE,
    ).succeeded()
    told, nobody = (each["releases"] for each in played.results("helm_release_info"))
    broken, found = told
    assert (found["name"], found["status"], found["revision"], found["ready"]) == ("web", "deployed", 2, True)
    assert (found["chart"], found["app_version"]) == ("web-1.0.0", "1.0")
    assert found["values"] == {"message": "hi", "password": "********"}
    assert [(each["revision"], each["status"]) for each in found["revisions"]] == [(1, "superseded"), (2, "deployed")]
    assert {f"{each['kind']}/{each['name']}": each["ready"] for each in found["objects"]} == {
        "Secret/web-password": True,
        "ConfigMap/web": True,
        "Deployment/web": True,
    }
    assert not broken["ready"]
    assert "CrashLoopBackOff" in broken["reason"]
    assert LAST_WORDS in broken["reason"]
    assert [(each["name"], each["status"]) for each in nobody] == [("nobody", "absent")]
    assert "correct-horse" not in played.output + json.dumps(told)
