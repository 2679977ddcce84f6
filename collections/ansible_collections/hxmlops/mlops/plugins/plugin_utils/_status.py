# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""How releases are, from their records and the live objects."""

from __future__ import annotations

from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _masking, _readiness
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import Stored, content, manifests
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube


def status(kube: Kube, found: Stored, name: str, namespace: str) -> dict[str, Any]:
    """One release: its record, its objects with readiness, and why it is not ready; ``status: absent`` for none."""
    latest = found.latest(name)
    told: dict[str, Any] = {"name": name, "namespace": namespace, "status": "absent", "ready": False, "reason": ""}
    if latest is None:
        return told
    release = content(kube, latest) or {}
    metadata = (release.get("chart") or {}).get("metadata") or {}
    objects = manifests(release.get("manifest") or "")
    told |= {
        "status": latest.status,
        "revision": latest.revision,
        "updated": (release.get("info") or {}).get("last_deployed", ""),
        "chart": f"{metadata.get('name')}-{metadata.get('version')}",
        "app_version": metadata.get("appVersion", ""),
        "values": _masking.values(release.get("config") or {}),
        "notes": (release.get("info") or {}).get("notes", ""),
        "revisions": [
            {"revision": record.revision, "status": record.status, "since": record.since}
            for record in found.history[name]
        ],
    }
    if latest.status == "uninstalled":
        return told
    missing = _readiness.unready(kube, _readiness.waited_for(objects), namespace)
    words = {(thing["kind"], thing["metadata"]["name"]): text for thing, _state, text in missing}
    told["objects"] = [
        {"kind": kind, "name": label, "ready": (kind, label) not in words, "state": words.get((kind, label), "")}
        for kind, label in ((thing["kind"], thing["metadata"]["name"]) for thing in objects)
    ]
    told["ready"] = latest.status == "deployed" and not missing
    if missing:
        thing, _state, text = missing[0]
        label = f"{thing['kind']} {thing['metadata']['name']} {text}"
        told["reason"] = f"{label}: {_readiness.reason(kube, thing, namespace)}"
    elif latest.status != "deployed":
        told["reason"] = f"revision {latest.revision} is {latest.status}"
    return told
