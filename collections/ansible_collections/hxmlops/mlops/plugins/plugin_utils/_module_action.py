# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What actions on a domain's modules share: the domain's own variables say where it is and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _modules
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._cluster_action import ClusterAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import Access, access
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release, parse

MODULES: dict[str, Any] = {"modules": {"type": "list", "elements": "dict"}, "only": {"type": "list", "elements": "str"}}


class ModuleAction(ClusterAction):
    """An action on some or all modules of a domain."""

    def domain_list(self) -> list[dict[str, Any]] | None:
        """All modules of the domain: its own list, or that of its kind; None where neither is known."""
        own = self.variable("hxmlops_modules")
        return _modules.of_kind(self.variables.get("group_names") or []) if own is None else list(own)

    def listed(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """The modules that the task is about: those it names, or one of the domain's, or all of them."""
        given = arguments["modules"] if arguments["modules"] is not None else self.domain_list()
        given = None if given is None else [self._with_secrets(item) for item in given]
        if arguments["only"]:
            return [item for name in arguments["only"] for item in _modules.selected(given or [], name)]
        if given is None:
            groups = ", ".join(_modules.KINDS)
            raise UserError(
                f"domain {self.host} has no hxmlops_modules, and is in none of the groups {groups} that have a list: "
                "set hxmlops_modules, or put it into one of them"
            )
        return list(given)

    def _with_secrets(self, item: Any) -> Any:
        """A module whose ``secrets`` name a variable that has them: Ansible may show a task's arguments to anybody."""
        if isinstance(item, dict) and isinstance(item.get("secrets"), str):
            return {**item, "secrets": self.variable(item["secrets"], {})}
        return item

    def domain_access(self) -> Access:
        """The domain's cluster, by hxmlops_kubeconfig and hxmlops_context, or Ansible's K8S_AUTH_* environment."""
        if self.variable("hxmlops_runtime", "kubernetes") != "kubernetes":
            raise UserError(
                f"domain {self.host} has no cluster (hxmlops_runtime is {self.variable('hxmlops_runtime')}): this "
                "module runs on Kubernetes only; set hxmlops_runtime to kubernetes and hxmlops_context to its context"
            )
        return access({"kubeconfig": self.variable("hxmlops_kubeconfig"), "context": self.variable("hxmlops_context")})

    def place(self, otherwise: str | None) -> _modules.Place:
        """The domain as the modules' data speaks of it; `otherwise` is its namespace where no variable says so."""
        namespace = self.variable("hxmlops_namespace", otherwise)
        if not namespace:
            raise UserError(
                f"domain {self.host} has no namespace: set hxmlops_namespace (its context in the kubeconfig has none)"
            )
        return _modules.Place(
            self.host,
            str(namespace),
            str(self.variable("hxmlops_location", "")),
            str(self.variable("hxmlops_image_registry", "")),
        )

    def releases(self, arguments: dict[str, Any]) -> tuple[Kube, list[Release]]:
        """The domain's API server, and the listed modules as releases."""
        found = self.domain_access()
        return Kube(found), self.as_releases(self.listed(arguments), self.place(found.namespace))

    def as_releases(self, items: list[dict[str, Any]], place: _modules.Place) -> list[Release]:
        """Modules as releases, in their order."""
        made = _modules.releases(items, place, self.domain_list() or [])
        return parse(made, place.namespace, Path(self._loader.get_basedir()))
