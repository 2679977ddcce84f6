# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Helm releases as they should be, one or a graph of them; see plugins/modules/helm_release.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._cluster_action import CONNECTION, ENGINE, ClusterAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import parse

RELEASE: dict[str, Any] = {
    "name": {"type": "str"},
    "namespace": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent", "rolled_back"]},
    "chart": {"type": "str"},
    "version": {"type": "str"},
    "repo": {"type": "str"},
    "values": {"type": "dict"},
    "values_files": {"type": "list", "elements": "str"},
    "needs": {"type": "list", "elements": "str"},
    "secrets": {"type": "list", "elements": "dict", "no_log": False},
    "revision": {"type": "int"},
    "delete_data": {"type": "bool"},
}


class ActionModule(ClusterAction):
    """Checks the whole graph, finds what is to be done in one read, and does it side by side."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **CONNECTION,
        **ENGINE,
        **RELEASE,
        "releases": {"type": "list", "elements": "dict", "options": RELEASE},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if bool(arguments["name"]) == (arguments["releases"] is not None):
            raise UserError("helm_release: give one release by name, or a list of them by releases")
        items = arguments["releases"] or [{key: arguments[key] for key in RELEASE}]
        if arguments["releases"] == []:
            return {"changed": False, "releases": []}
        found = self.access(arguments)
        namespace = arguments["namespace"] or found.namespace
        if not namespace and not all(item["namespace"] for item in items):
            raise UserError(f"helm_release: no namespace: give one ({found.where} names none)")
        releases = parse(items, str(namespace), Path(self._loader.get_basedir()))
        return self.install(Kube(found), releases, arguments)
