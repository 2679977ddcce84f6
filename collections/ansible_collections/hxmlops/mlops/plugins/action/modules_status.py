# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""How the modules of a domain are; see plugins/modules/modules_status.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import stored
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._module_action import MODULES, ModuleAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._status import status

SIDE_BY_SIDE = 8


class ActionModule(ModuleAction):
    """Their releases, readiness and, where they are not ready, why."""

    ARGUMENTS: ClassVar[dict[str, Any]] = MODULES

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        kube, releases = self.releases(arguments)
        records = {namespace: stored(kube, namespace) for namespace in {release.namespace for release in releases}}

        def one(release: Release) -> dict[str, Any]:
            return status(kube, records[release.namespace], release.name, release.namespace)

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            found = list(pool.map(one, releases))
        for entry in found:
            self.say(_line(entry))
        return {"changed": False, "releases": found}


def _line(entry: dict[str, Any]) -> str:
    if entry["status"] == "absent":
        return f"{entry['name']:<20} absent"
    ready = "ready" if entry["ready"] else "NOT READY"
    what = (
        f"{entry['name']:<20} {entry['status']:<12} revision {entry['revision']:<4} {ready:<10} {entry['app_version']}"
    )
    return f"{what}  {entry['reason']}".rstrip()
