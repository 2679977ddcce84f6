# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What a domain is like before anything is installed in it; see plugins/modules/domain_info.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._cluster_action import CONNECTION, ClusterAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain_facts import survey
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._modules import module, of_kind


class ActionModule(ClusterAction):
    """Asks the API server for all that matters, side by side."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **CONNECTION,
        "namespace": {"type": "str"},
        "modules": {"type": "list", "elements": "str"},
        "binary_path": {"type": "path"},
        "fail": {"type": "bool", "default": True},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        names = self._listed() if arguments["modules"] is None else arguments["modules"]
        modules = [module(name) for name in dict.fromkeys(names)]
        found = self.access(arguments)
        namespace = arguments["namespace"] or found.namespace
        if not namespace:
            raise UserError(f"domain_info: no namespace: give one ({found.where} names none)")
        facts = survey(Kube(found), namespace, modules, arguments["binary_path"])
        result: dict[str, Any] = {"changed": False, **facts.result()}
        errors = [finding.text for finding in facts.findings if finding.severity == "error"]
        if errors and arguments["fail"]:
            result.update(failed=True, msg="; ".join(errors))
        return result

    def _listed(self) -> list[str]:
        """Names of the modules that the domain is to have, by its own list or that of its kind."""
        items = self.variable("hxmlops_modules") or of_kind(self.variables.get("group_names") or []) or []
        return [str(item["module"]) for item in items if item.get("state") != "absent"]
