# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""From releases as they should be to releases as they are: what is to be done, then doing it, side by side."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _masking, _readiness, _secrets
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._drift import drift
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import (
    READY,
    Helm,
    HelmError,
    Record,
    Stored,
    content,
    manifests,
    stored,
)
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._locks import Locked, orphaned, release_lock
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release, order

PROGRESS_S = 5.0
TICK_S = 0.1
POLL_S = 0.25
SLOWEST_POLL_S = 2.0
SILENCE_S = 15.0
CHANGES = ("install", "upgrade", "recover", "repair", "rollback", "secrets", "uninstall")
INSTALLS = ("install", "upgrade", "recover", "repair")


@dataclass(frozen=True)
class Options:
    """How the engine works; times in seconds."""

    check: bool = False
    diff: bool = False
    concurrency: int = 6
    keep_going: bool = False
    recover: bool = False
    drift: str = "ignore"  # ignore, report, repair
    wait: bool = True
    timeout_s: int = 300
    binary: str | None = None


@dataclass
class Step:
    """One release on its way."""

    release: Release
    plan: str = ""
    latest: Record | None = None
    was: Record | None = None  # the latest one before anything was done
    action: str = "none"  # none, wait, one of CHANGES, adopt, skipped, refused
    reason: str = ""
    failed: bool = False
    seconds: float = 0.0
    lacking: list[Any] = field(default_factory=list)  # Secrets to make
    drifts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    before: str = ""
    after: str = ""
    now: str = ""  # what it is doing, for the progress line
    waits: bool = False  # only for readiness now

    @property
    def changed(self) -> bool:
        return self.action in CHANGES

    def record(self) -> dict[str, Any]:
        """What the task returns of it."""
        return {
            "name": self.release.name,
            "namespace": self.release.namespace,
            "action": self.action,
            "revision": self.latest.revision if self.latest else 0,
            "changed": self.changed,
            "failed": self.failed,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
            **({"drift": self.drifts} if self.drifts else {}),
            **({"secrets": [secret.name for secret, _keys in self.lacking]} if self.lacking else {}),
            **({"warnings": self.warnings} if self.warnings else {}),
        }


class Engine:
    """The releases of one domain: `run` brings them to what is wanted and says of each what happened."""

    def __init__(self, kube: Kube, options: Options, say: Callable[[str], None]) -> None:
        self.kube = kube
        self.options = options
        self.say = say
        self._program: Helm | None = None

    @property
    def _helm(self) -> Helm:
        """The helm program, looked for when it is needed: nothing to do needs none."""
        if self._program is None:
            self._program = Helm(self.kube, self.options.binary, self.options.timeout_s)
        return self._program

    def run(self, releases: Iterable[Release]) -> list[Step]:
        """All releases, in their order. A failure is in the step; KubeError and HelmError are for the whole task."""
        wanted = list(releases)
        namespaces = sorted({release.namespace for release in wanted})
        found = dict(zip(namespaces, self._side_by_side(lambda name: stored(self.kube, name), namespaces), strict=True))
        charts: dict[str, str] = {}
        steps = [self._step(release, found[release.namespace], charts) for release in wanted]
        if self.options.drift != "ignore":
            self._side_by_side(self._look_for_drift, [step for step in steps if step.action in ("none", "wait")])
        self._side_by_side(self._compare_given, [step for step in steps if step.action in ("none", "wait", "upgrade")])
        changes = [step for step in steps if step.action in CHANGES]
        if changes:
            self._prepare(changes)
        refused = [step for step in steps if step.failed]
        if refused and not self.options.keep_going:
            for step in steps:
                if step.action in (*CHANGES, "wait", "adopt") and not step.failed:
                    step.action = "skipped"
                    step.reason = f"not begun: {refused[0].release.name} failed the checks before"
            return steps
        if self.options.check:
            return steps
        self._work({step.release.name: step for step in steps})
        return steps

    # -- what is to be done -----------------------------------------------------------------------------------------

    def _step(self, release: Release, found: Stored, charts: dict[str, str]) -> Step:
        latest = found.latest(release.name)
        step = Step(release, latest=latest, was=latest)
        gone = latest is None or latest.status == "uninstalled"
        if release.state == "absent":
            step.action = "none" if gone and not release.delete_data else "uninstall"
            if gone and release.delete_data and not self._leftovers(release, found):
                step.action = "none"
            return step
        if release.state == "rolled_back":
            return self._rollback_step(step, found)
        step.plan = release.plan(charts)
        step.lacking = _secrets.missing(found, release)
        if gone or latest is None:
            step.action = "install"
        elif latest.status == "deployed":
            unchanged = latest.has_plan(step.plan)
            waiting = self.options.wait and not latest.seen_ready
            step.action = "upgrade" if not unchanged else "secrets" if step.lacking else "wait" if waiting else "none"
        elif self.options.recover:
            step.action = "recover"
        else:
            self._refuse_or_adopt(step, latest)
        return step

    def _refuse_or_adopt(self, step: Step, latest: Record) -> None:
        """A half-done revision: a person decides, unless the helm of a killed run still works on it."""
        try:
            at_work = orphaned(self.kube.access.server, latest.namespace, latest.name)
        except Locked as error:
            step.action, step.failed, step.reason = "refused", True, str(error)
            return
        if at_work and latest.status.startswith("pending"):
            step.action = "adopt"
        else:
            step.action, step.failed, step.reason = "refused", True, _stuck(latest)

    def _leftovers(self, release: Release, found: Stored) -> bool:
        own = any(secret.name in found.secrets for secret in release.secrets)
        return own or bool(self.kube.list(_claims(release), labelSelector=_instance(release), metadata=True))

    def _rollback_step(self, step: Step, found: Stored) -> Step:
        release, latest = step.release, step.latest
        revisions = found.history.get(release.name, [])
        target = next((record for record in revisions if record.revision == release.revision), None)
        if latest is None or target is None:
            known = ", ".join(str(record.revision) for record in revisions) or "none"
            step.action, step.failed = "refused", True
            step.reason = f"it has no revision {release.revision} to go back to: its revisions are {known}"
        elif latest.status.startswith("pending") and not self.options.recover:
            step.action, step.failed, step.reason = "refused", True, _stuck(latest)
        elif latest.status != "deployed" or not self._same_content(latest, target):
            step.action = "rollback"
        return step

    def _same_content(self, one: Record, other: Record) -> bool:
        if one.revision == other.revision:
            return True
        left, right = content(self.kube, one), content(self.kube, other)
        keys = ("manifest", "config", "hooks")
        return bool(left and right) and all((left or {}).get(key) == (right or {}).get(key) for key in keys)

    def _look_for_drift(self, step: Step) -> None:
        release = content(self.kube, step.latest) if step.latest else None
        if release is None:
            return
        step.drifts = drift(self.kube, manifests(release["manifest"]), step.release.namespace)
        if step.drifts and self.options.drift == "repair":
            step.action = "repair"

    def _compare_given(self, step: Step) -> None:
        for key in _secrets.differing(self.kube, step.release) if step.release.state == "present" else []:
            step.warnings.append(
                f"release {step.release.name}: Secret {key} differs from the value given and was left as it is: change "
                "it in the software first, then in the Secret"
            )

    def _prepare(self, changes: list[Step]) -> None:
        """Before anything runs: the namespace is there, and every chart renders with the values given to it.

        A chart as its maker left it is not rendered first, but for a diff or in check mode: a quarter of the time.
        """
        for namespace in sorted({step.release.namespace for step in changes if step.action != "uninstall"}):
            self._require(namespace)
        told = self.options.check or self.options.diff
        rendered = [step for step in changes if step.action in INSTALLS and (told or step.release.given)]
        if any(step.action != "secrets" for step in changes):
            _early = self._helm  # missing or too old: said before anything runs
        if rendered:
            version, groups = self.kube.version(), self._api_versions()
            self._side_by_side(lambda step: self._render(step, version, groups), rendered)
        if self.options.diff:
            self._side_by_side(self._as_it_is, changes)

    def _require(self, namespace: str) -> None:
        try:
            if self.kube.get(f"/api/v1/namespaces/{namespace}") is None:
                raise KubeError(
                    f"{self.kube.access.where}: there is no namespace {namespace}: prepare.yml makes it "
                    f"(or kubectl create namespace {namespace})"
                )
        except KubeError as error:
            if error.status != 403:  # who may not look may still install
                raise

    def _api_versions(self) -> list[str]:
        groups = self.kube.request("GET", "/apis", {}).get("groups") or []
        return ["v1", *(entry["groupVersion"] for group in groups for entry in group.get("versions") or [])]

    def _render(self, step: Step, version: str, groups: list[str]) -> None:
        try:
            text = self._helm.template(step.release, version, groups, upgrade=step.action != "install")
            if self.options.diff:
                step.after = _masking.manifest(manifests(text))
        except HelmError as error:
            step.action, step.failed = "refused", True
            step.reason = _masking.scrubbed(str(error), _masking.secrets_of(step.release.values))

    def _as_it_is(self, step: Step) -> None:
        release = content(self.kube, step.latest) if step.latest and step.latest.status != "uninstalled" else None
        step.before = _masking.manifest(manifests(release["manifest"])) if release else ""
        if step.action == "rollback" and step.latest:
            target = Record(step.release.name, step.release.namespace, step.release.revision, "", {})
            wanted = content(self.kube, target)
            step.after = _masking.manifest(manifests(wanted["manifest"])) if wanted else ""

    # -- doing it ---------------------------------------------------------------------------------------------------

    def _side_by_side(self, work: Callable[[Any], Any], things: list[Any]) -> list[Any]:
        if len(things) < 2:
            return [work(thing) for thing in things]
        with concurrent.futures.ThreadPoolExecutor(self.options.concurrency) as pool:
            return list(pool.map(work, things))

    def _work(self, steps: dict[str, Step]) -> None:
        """Run what is ready until all is done; a failure stops what needs it, or (fail-fast) all that is left."""
        sorter = order(step.release for step in steps.values())
        running: dict[concurrent.futures.Future[None], Step] = {}
        begun = told = time.monotonic()
        stopped = False
        ready: list[str] = []
        with concurrent.futures.ThreadPoolExecutor(max(1, len(steps))) as pool:
            while sorter.is_active():
                ready += sorter.get_ready()
                # one that only waits for readiness holds nobody up
                while ready and sum(not step.waits for step in running.values()) < self.options.concurrency:
                    name = ready.pop(0)
                    step = steps[name]
                    blocker = next((steps[need] for need in self._before(step, steps) if steps[need].failed), None)
                    if step.failed or step.action in ("none", "skipped"):
                        sorter.done(name)
                    elif blocker or stopped:
                        who = blocker.release.name if blocker else "another release"
                        step.action, step.reason, step.failed = "skipped", f"not begun: {who} failed", bool(blocker)
                        sorter.done(name)
                    else:
                        running[pool.submit(self._do, step)] = step
                if not running:
                    continue
                done, _pending = concurrent.futures.wait(
                    running, timeout=TICK_S, return_when=concurrent.futures.FIRST_COMPLETED
                )
                if time.monotonic() - told > PROGRESS_S:
                    told = time.monotonic()
                    doing = "; ".join(f"{step.release.name}: {step.now}" for step in running.values())
                    self.say(f"{told - begun:.0f} s: {doing}")
                for future in done:
                    step = running.pop(future)
                    future.result()
                    stopped = stopped or (step.failed and not self.options.keep_going)
                    sorter.done(step.release.name)

    @staticmethod
    def _before(step: Step, steps: dict[str, Step]) -> list[str]:
        if step.release.state != "absent":
            return list(step.release.needs)
        return [name for name, other in steps.items() if step.release.name in other.release.needs]

    def _do(self, step: Step) -> None:
        start, release = time.monotonic(), step.release
        step.now = "begins"
        try:
            if step.action == "wait":
                self._wait(step)
                return
            with release_lock(
                self.kube.access.server,
                release.namespace,
                release.name,
                timeout_s=self.options.timeout_s,
                say=lambda text: self.say(f"{release.name}: {text}"),
            ) as (lock, orphan):
                if (orphan or step.action == "adopt") and self._adopted(step):
                    return
                self._change(step, lock)
        except (HelmError, KubeError, Locked) as error:
            step.failed = True
            known = _masking.secrets_of(release.values) | _secrets.known(self.kube, release)
            step.reason = _masking.scrubbed(f"{error}{self._after_failure(step, error)}", known)
        finally:
            step.seconds = time.monotonic() - start

    def _after_failure(self, step: Step, error: UserError) -> str:
        """Learn which revision failed; and why, where it is a hook of it or the API server that did."""
        try:
            step.latest = stored(self.kube, step.release.namespace).latest(step.release.name)
            release = content(self.kube, step.latest) if step.latest and step.latest.status == "failed" else None
            for hook in (release or {}).get("hooks") or []:
                if (hook.get("last_run") or {}).get("phase") == "Failed":
                    for thing in manifests(hook["manifest"]):
                        live = self.kube.get(self.kube.path_of(thing, step.release.namespace))
                        return f": {_readiness.reason(self.kube, live, step.release.namespace)}" if live else ""
        except KubeError as now:
            if now.status is None and str(now) != str(error):
                return f": {now}"
        return ""

    def _adopted(self, step: Step) -> bool:
        """True when an orphan did meanwhile what was to be done; else the step knows what is there now."""
        step.latest = stored(self.kube, step.release.namespace).latest(step.release.name)
        latest = step.latest
        if step.action == "uninstall" and (latest is None or latest.status == "uninstalled"):
            step.action = "adopt"
        elif step.plan and latest and latest.status == "deployed" and latest.has_plan(step.plan):
            step.action = "adopt"
            self._wait(step)
        elif step.action in (*INSTALLS, "adopt"):
            if latest is None or latest.status == "uninstalled":
                step.action = "install"
            elif latest.status == "deployed":
                step.action = "upgrade"
            elif self.options.recover:
                step.action = "recover"
            else:
                raise HelmError(_stuck(latest))
        return step.action == "adopt"

    def _change(self, step: Step, lock: int) -> None:
        release = step.release
        step.now = f"helm {step.action}"
        if step.action == "uninstall":
            self._helm.uninstall(release, lock)
            self._delete_data(step)
            return
        if step.action == "rollback":
            self._helm.rollback(release, lock)
        else:
            _secrets.ensure(self.kube, release, step.lacking)
            if step.action == "recover":
                step.latest = self._forget_half_done(release)
            revision = (step.latest.revision if step.latest else 0) + 1
            if step.action != "secrets":
                self._helm.upgrade(release, step.plan, revision, force=step.action == "repair", lock=lock)
        step.latest = stored(self.kube, release.namespace).latest(release.name)
        self._wait(step)

    def _forget_half_done(self, release: Release) -> Record | None:
        """Drop the records of revisions that never became one, and answer the newest that is left.

        Their objects stay; the upgrade that follows takes them over. Helm refuses to go on beside a pending revision,
        and after failed ones if none was ever deployed.
        """
        history = stored(self.kube, release.namespace).history.get(release.name, [])
        deployed = any(record.status == "deployed" for record in history)
        left = []
        for record in history:
            if record.status.startswith("pending") or (record.status == "failed" and not deployed):
                self.kube.delete(f"/api/v1/namespaces/{record.namespace}/secrets/{record.secret}")
            else:
                left.append(record)
        return left[-1] if left else None

    def _delete_data(self, step: Step) -> None:
        release = step.release
        if not release.delete_data:
            return
        for claim in self.kube.list(_claims(release), labelSelector=_instance(release), metadata=True):
            self.kube.delete(f"{_claims(release)}/{claim['metadata']['name']}")
        for secret in release.secrets:
            self.kube.delete(f"/api/v1/namespaces/{release.namespace}/secrets/{secret.name}")

    def _wait(self, step: Step) -> None:
        """Until everything of the release is ready; then its record says so. Raises HelmError with the reason."""
        if not self.options.wait or step.latest is None:
            return
        record, release = step.latest, step.release
        step.waits = True
        made = content(self.kube, record)
        objects = _readiness.waited_for(manifests(made["manifest"])) if made else []
        deadline, pause, silent_since = time.monotonic() + self.options.timeout_s, POLL_S, 0.0
        while True:
            try:
                missing = _readiness.unready(self.kube, objects, release.namespace)
            except KubeError as error:  # an API server that is replaced is away for some seconds
                silent_since = silent_since or time.monotonic()
                if error.status or time.monotonic() - silent_since > SILENCE_S:
                    raise
                time.sleep(pause)
                continue
            silent_since = 0.0
            if not missing:
                break
            thing, failed, words = missing[0]
            step.now = f"{thing['kind']} {thing['metadata']['name']} {words}"
            if failed or time.monotonic() > deadline:
                why = _readiness.reason(self.kube, thing, release.namespace)
                within = "" if failed else f" within {self.options.timeout_s} s"
                raise HelmError(f"{step.now}{within}: {why}")
            objects = [thing for thing, _state, _reason in missing]
            time.sleep(pause)
            pause = min(pause * 1.3, SLOWEST_POLL_S)
        label = {"metadata": {"labels": {READY: str(record.revision)}}}
        self.kube.merge(f"/api/v1/namespaces/{release.namespace}/secrets/{record.secret}", label)


def _claims(release: Release) -> str:
    return f"/api/v1/namespaces/{release.namespace}/persistentvolumeclaims"


def _instance(release: Release) -> str:
    return f"app.kubernetes.io/instance={release.name}"


def _stuck(record: Record) -> str:
    since = f" since {record.since}" if record.since else ""
    if record.status.startswith(("pending", "uninstalling")):
        return (
            f"revision {record.revision} is {record.status}{since}: another helm works on it, or was killed. If nobody "
            "does, run again with recover: true (hxmlops_recover=true)"
        )
    return (
        f"revision {record.revision} is {record.status}{since}: see why (helm_release_info), then run again with "
        "recover: true (hxmlops_recover=true)"
    )
