# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Releases of a namespace as they are; see plugins/modules/helm_release_info.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._cluster_action import CONNECTION, ClusterAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import stored
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._status import status


class ActionModule(ClusterAction):
    """One release by name, or all of the namespace."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **CONNECTION,
        "name": {"type": "str"},
        "namespace": {"type": "str"},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        found = self.access(arguments)
        namespace = arguments["namespace"] or found.namespace
        if not namespace:
            raise UserError(f"helm_release_info: no namespace: give one ({found.where} names none)")
        kube = Kube(found)
        records = stored(kube, namespace)
        names = [arguments["name"]] if arguments["name"] else sorted(records.history)
        return {"changed": False, "releases": [status(kube, records, name, namespace) for name in names]}
