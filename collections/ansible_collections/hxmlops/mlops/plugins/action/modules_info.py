# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What modules are, with their values and images; see plugins/modules/modules_info.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _modules
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import Helm, manifests
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._images import images
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._module_action import MODULES, ModuleAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release

SIDE_BY_SIDE = 6


class ActionModule(ModuleAction):
    """Needs no cluster; for images it asks helm to render the charts."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **MODULES,
        "show": {"type": "str", "choices": ["nothing", "pages", "images"], "default": "nothing"},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        items = self.listed(arguments)
        releases = self.as_releases(items, self.place(self.host))
        described = [
            _described(_modules.module(str(item["module"])), release)
            for item, release in zip(items, releases, strict=True)
        ]
        if arguments["show"] == "images":
            helm = Helm(None, self.variable("hxmlops_helm_binary_path"))
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                for entry, found in zip(
                    described, pool.map(lambda release: _images(helm, release), releases), strict=True
                ):
                    entry["images"] = found
            Display().display("\n".join(sorted({image for entry in described for image in entry["images"]})))
        elif arguments["show"] == "pages":
            Display().display("\n\n".join(_page(entry) for entry in described))
        return {"changed": False, "modules": described}


def _described(module: _modules.Module, release: Release) -> dict[str, Any]:
    data = module.data
    return {
        "module": module.name,
        "title": data["title"],
        "summary": data["summary"],
        "version": data["version"],
        "namespace": release.namespace,
        "release": release.name,
        "needs": data.get("needs") or [],
        "ports": data.get("ports") or {},
        "secrets": {secret.name: sorted(secret.keys) for secret in release.secrets},
        "chart": release.chart,
        "values": (module.folder / "chart" / "values.yaml").read_text(encoding="utf-8"),
    }


def _images(helm: Helm, release: Release) -> list[str]:
    return sorted(images(manifests(helm.template(release, None, [], upgrade=False))))


def _page(entry: dict[str, Any]) -> str:
    ports = ", ".join(f"{name} {port}" for name, port in entry["ports"].items()) or "none"
    secrets = "; ".join(f"{name} ({', '.join(keys)})" for name, keys in entry["secrets"].items()) or "none"
    return "\n".join(
        [
            f"# {entry['title']} {entry['version']}: {entry['summary']}",
            f"# release {entry['release']} in namespace {entry['namespace']}; ports: {ports}",
            f"# needs, where the domain has them: {', '.join(entry['needs']) or 'nothing'}; Secrets: {secrets}",
            "# Its values; write those that differ into a file and give it as hxmlops_values_file:",
            "",
            entry["values"].rstrip(),
        ]
    )
