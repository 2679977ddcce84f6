# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What a domain needs of the whole cluster, once, by an admin; see plugins/modules/cluster_objects.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _masking, _modules
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._drift import differences, settled
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._module_action import MODULES, ModuleAction

LEVEL = "pod-security.kubernetes.io"
PARTS = ("Namespace", "CustomResourceDefinition")  # first, as others live in them or speak of them


class ActionModule(ModuleAction):
    """Namespaces with their Pod Security level, rights of those who deploy, and the modules' own ``cluster/*.yml``."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **MODULES,
        "meters": {"type": "list", "elements": "str", "default": []},
        "deployers": {"type": "list", "elements": "dict", "default": []},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        found = self.domain_access()
        kube, place = Kube(found), self.place(found.namespace)
        items = self.listed(arguments) + [{"module": name} for name in arguments["meters"]]
        objects = wanted(items, place, arguments["deployers"])
        objects.sort(key=lambda thing: PARTS.index(thing["kind"]) if thing["kind"] in PARTS else len(PARTS))
        changed, diff = [], []
        made: set[str] = set()
        for thing in objects:
            before, after = self._apply(kube, thing, place.namespace, made)
            if before is None or differences(settled(before), settled(after)):
                changed.append(f"{thing['kind']} {thing['metadata']['name']}")
                diff.append(_diff(changed[-1], before, after))
        return {"changed": bool(changed), "objects": changed, **({"diff": diff} if self._task.diff else {})}

    def _apply(
        self, kube: Kube, thing: dict[str, Any], namespace: str, made: set[str]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """(the object as it was, as it is now); in check mode as it would be."""
        inside = thing["metadata"].get("namespace")
        if self.check and inside in made:
            return None, thing
        before = kube.get(kube.path_of(thing, namespace))
        if self.check and before is None:
            if thing["kind"] == "Namespace":
                made.add(thing["metadata"]["name"])
            return None, thing
        try:
            return before, kube.apply(thing, namespace=namespace, dry_run=self.check)
        except KubeError as error:
            what = f"{thing['kind']} {thing['metadata']['name']}"
            raise KubeError(f"{what}: {error}", error.status, error.reason) from None


def wanted(items: list[dict[str, Any]], place: _modules.Place, deployers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All objects that the domain's modules need of the cluster."""
    objects = [namespace(place.namespace, "restricted")]
    if _modules.privileged(items):
        objects.append(namespace(place.namespace + _modules.METERS, "privileged"))
    names = [thing["metadata"]["name"] for thing in objects]
    objects += [deployer(name, subjects(deployers, place.namespace)) for name in names if deployers]
    return objects + _modules.cluster_objects(items, place)


def namespace(name: str, level: str) -> dict[str, Any]:
    """A namespace that enforces a Pod Security level."""
    labels = {f"{LEVEL}/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**labels, "app.kubernetes.io/part-of": "hxmlops"}},
    }


def subjects(deployers: list[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """Users, groups and service accounts, as a RoleBinding names them."""
    found = []
    for entry in deployers:
        kind = str(entry.get("kind", "User"))
        if kind == "ServiceAccount":
            found.append({"kind": kind, "name": entry["name"], "namespace": entry.get("namespace") or namespace})
        else:
            found.append({"kind": kind, "name": entry["name"], "apiGroup": "rbac.authorization.k8s.io"})
    return found


def deployer(namespace: str, who: list[dict[str, Any]]) -> dict[str, Any]:
    """The rights of those who deploy: everything inside the namespace, nothing outside it."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "hxmlops-deployers", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": who,
    }


def _diff(what: str, before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, str]:
    return {
        "before_header": what if before else f"{what} (not there)",
        "after_header": what,
        "before": _masking.manifest([settled(before)]) if before else "",
        "after": _masking.manifest([settled(after)]),
    }
