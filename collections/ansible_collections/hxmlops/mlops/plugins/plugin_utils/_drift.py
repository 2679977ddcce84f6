# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Drift: where live objects are no longer what the release made them.

The API server is asked, by a dry run of server-side apply, what an object would be with the release's fields as the
release has them; where that differs from the live object, somebody changed it. Fields that the release does not name
(replicas under an autoscaler, defaults) are nobody's drift.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube

_VOLATILE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
_SHOWN = 60


def drift(kube: Kube, objects: Iterable[dict[str, Any]], namespace: str) -> list[str]:
    """One sentence for each object that is missing or was changed."""
    found = []
    for thing in objects:
        name = f"{thing['kind']} {thing['metadata']['name']}"
        live = kube.get(kube.path_of(thing, namespace))
        if live is None:
            found.append(f"{name} is missing")
            continue
        restored = kube.apply(thing, namespace=namespace, manager="hxmlops-drift", dry_run=True)
        for path, now, was in differences(settled(live), settled(restored)):
            secret = thing["kind"] == "Secret" and path.startswith(("data", "stringData"))
            found.append(
                f"{name}: {path} " + ("differs" if secret else f"is {_short(now)}, the release has {_short(was)}")
            )
    return found


def settled(thing: dict[str, Any]) -> dict[str, Any]:
    """An object without what the API server keeps about it: versions, times, managers, status."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in _VOLATILE}
    return {**{key: value for key, value in thing.items() if key != "status"}, "metadata": metadata}


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, value in one, value in the other) wherever two JSON values differ; None for what is not there."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted(one.keys() | other.keys()):
            found += differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = []
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            found += differences(left, right, f"{path}[{number}]")
        return found
    return [] if one == other else [(path, one, other)]
