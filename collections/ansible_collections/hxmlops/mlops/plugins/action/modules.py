# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Install or delete modules of a domain, one or all in one call; see plugins/modules/modules.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._cluster_action import ENGINE
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._module_action import MODULES, ModuleAction


class ActionModule(ModuleAction):
    """Turns modules into releases by the data of their roles, and hands them to the engine."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **MODULES,
        **{name: ENGINE[name] for name in ("concurrency", "on_failure", "wait", "timeout_s")},
        "state": {"type": "str", "choices": ["present", "absent"]},
        "values_file": {"type": "path"},
        "delete_data": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["values_file"] and not arguments["only"]:
            raise UserError("modules: values_file goes with only, as it is for one module")
        changes = {name: arguments[name] for name in ("state", "delete_data", "values_file") if arguments[name]}
        if changes:
            changed = [{**item, **changes} for item in self.listed(arguments)]
            arguments = {**arguments, "modules": changed, "only": None}
        kube, releases = self.releases(arguments)
        drift = str(self.variable("hxmlops_drift", "ignore"))
        if drift not in ENGINE["drift"]["choices"]:
            raise UserError(f"hxmlops_drift is {drift}: it takes {', '.join(ENGINE['drift']['choices'])}")
        engine = {
            "recover": boolean(self.variable("hxmlops_recover", False)),
            "drift": drift,
            "binary_path": self.variable("hxmlops_helm_binary_path"),
        }
        return self.install(kube, releases, {**arguments, **engine})
