# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Whether a release's objects are ready, and why they are not, in the words of the cluster."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "CustomResourceDefinition")
LOG_LINES = 3


def waited_for(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those objects of a manifest that get ready by and by."""
    return [thing for thing in objects if thing["kind"] in WORKLOADS]


def state(thing: dict[str, Any] | None) -> tuple[bool, bool, str]:
    """(ready, failed for good, in words) of a live object."""
    if thing is None:
        return False, False, "is not there"
    kind, spec, status = thing["kind"], thing.get("spec") or {}, thing.get("status") or {}
    if status.get("observedGeneration", 0) < thing["metadata"].get("generation", 0) and kind in WORKLOADS[:3]:
        return False, False, "not seen by its controller yet"
    if kind == "Deployment":
        wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
        ready = min(updated, status.get("availableReplicas", 0))
        return ready >= wanted and status.get("replicas", 0) <= updated, False, f"{ready} of {wanted} ready"
    if kind == "StatefulSet":
        wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
        ready = min(updated, status.get("readyReplicas", 0))
        return ready >= wanted, False, f"{ready} of {wanted} ready"
    if kind == "DaemonSet":
        wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
        ready = min(updated, status.get("numberAvailable", 0))
        return ready >= wanted, False, f"{ready} of {wanted} ready"
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}

    def true(name: str) -> bool:
        return str(conditions.get(name, {}).get("status")) == "True"

    if kind == "Job":
        return true("Complete"), true("Failed"), conditions.get("Failed", {}).get("message", "not complete")
    if kind == "Pod":
        phase = status.get("phase", "Unknown")
        return phase == "Succeeded" or true("Ready"), phase == "Failed", str(phase)
    return true("Established"), False, "not established"


def unready(kube: Kube, objects: Iterable[dict[str, Any]], namespace: str) -> list[tuple[dict[str, Any], bool, str]]:
    """Those objects that are not ready: the live one (or as in the manifest), failed for good, in words."""
    found = []
    for thing in objects:
        live = kube.get(kube.path_of(thing, namespace))
        ready, failed, words = state(live)
        if not ready:
            found.append((live or thing, failed, words))
    return found


def reason(kube: Kube, thing: dict[str, Any], namespace: str) -> str:
    """Why an object is not ready: its pod's waiting reason, the last warning, the last lines of the log."""
    name, kind = thing["metadata"]["name"], thing["kind"]
    where = f"/api/v1/namespaces/{thing['metadata'].get('namespace') or namespace}"
    try:
        pods = [thing] if kind == "Pod" else _pods(kube, where, thing)
        pod = next((pod for pod in pods if not state({**pod, "kind": "Pod"})[0]), None)
        if pod is None:
            return _join(*_conditions(thing), _warning(kube, where, name, exact=False))
        container, why, crashed = _container(pod)
        log = _log(kube, where, pod["metadata"]["name"], container, previous=crashed) if container else ""
        warning = _warning(kube, where, pod["metadata"]["name"], exact=True)
        return _join(f"pod {pod['metadata']['name']}", why, warning, log)
    except KubeError as error:
        return f"(no reason can be read: {error})"


def _join(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _pods(kube: Kube, where: str, thing: dict[str, Any]) -> list[dict[str, Any]]:
    labels = ((thing.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    if not labels:
        return []
    pods = kube.list(f"{where}/pods", labelSelector=",".join(f"{key}={value}" for key, value in labels.items()))
    # the newest first: in an upgrade they are the ones that fail
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)


def _container(pod: dict[str, Any]) -> tuple[str | None, str, bool]:
    """(its first container in trouble, why, whether an earlier start of it ended)."""
    status = pod.get("status") or {}
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = entry.get("state", {}).get("waiting")
        ended = entry.get("lastState", {}).get("terminated") or entry.get("state", {}).get("terminated")
        if ended and ended.get("exitCode") == 0:
            ended = None
        if waiting or ended or not entry.get("ready"):
            told = []
            if waiting:
                told.append(_join(waiting.get("reason", ""), waiting.get("message", "")))
            if ended:
                told.append(f"last exit code {ended.get('exitCode')} ({ended.get('reason', 'no reason')})")
            running = "started" in entry and not waiting
            return entry["name"], "; ".join(told) or ("not ready" if running else "not started"), bool(ended)
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            return None, _join(condition.get("reason", ""), condition["message"]), False
    return None, str(status.get("phase", "")), False


def _conditions(thing: dict[str, Any]) -> list[str]:
    """Messages of the conditions that say what went wrong (ReplicaFailure, Failed, Progressing false)."""
    return [
        str(entry.get("message"))
        for entry in (thing.get("status") or {}).get("conditions") or []
        if (entry["type"] in ("ReplicaFailure", "Failed")) == (entry["status"] == "True")
        and entry["type"] in ("ReplicaFailure", "Failed", "Progressing")
        and entry.get("message")
    ]


def _warning(kube: Kube, where: str, name: str, *, exact: bool) -> str:
    """The last Warning event of an object, or (not exact) of those whose names begin with its name."""
    selector = "type=Warning" + (f",involvedObject.name={name}" if exact else "")
    events = [
        event
        for event in kube.list(f"{where}/events", fieldSelector=selector)
        if exact or str(event["involvedObject"].get("name", "")).startswith(name)
    ]
    if not events:
        return ""
    last = max(events, key=lambda event: str(event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]))
    return f"last event {last.get('reason')}: {' '.join(str(last.get('message')).split())}"


def _log(kube: Kube, where: str, pod: str, container: str, *, previous: bool) -> str:
    try:
        text = kube.text(
            f"{where}/pods/{urllib.parse.quote(pod)}/log",
            container=container,
            tailLines=LOG_LINES,
            previous="true" if previous else None,
        )
    except KubeError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"its log ends: {' | '.join(lines)}" if lines else ""
