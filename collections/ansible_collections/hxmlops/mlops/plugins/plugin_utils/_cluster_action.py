# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What actions on a cluster share: the connection and the options of the engine, and how its outcome is told."""

from __future__ import annotations

from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._engine import Engine, Options, Step
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import OPTIONS, Access, access
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release

SECRET_OPTIONS = ("api_key", "client_key")
CONNECTION: dict[str, Any] = {
    name: {"type": kind, "no_log": name in SECRET_OPTIONS} for name, (kind, _variable) in OPTIONS.items()
}
ENGINE: dict[str, Any] = {
    "concurrency": {"type": "int", "default": 6},
    "on_failure": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
    "recover": {"type": "bool", "default": False},
    "drift": {"type": "str", "choices": ["ignore", "report", "repair"], "default": "ignore"},
    "wait": {"type": "bool", "default": True},
    "timeout_s": {"type": "int", "default": 300},
    "binary_path": {"type": "path"},
}


class ClusterAction(DomainAction):
    """An action on a Kubernetes cluster from the controller."""

    def access(self, arguments: dict[str, Any]) -> Access:
        """The cluster that the task's options name, or Ansible's K8S_AUTH_* environment."""
        return access({name: arguments.get(name) for name in OPTIONS})

    def variable(self, name: str, default: Any = None) -> Any:
        """One of the host's variables, its templates resolved; `default` where it is not set or empty."""
        value = self._templar.template(self.variables[name]) if name in self.variables else None
        return default if value in (None, "") else value

    def install(self, kube: Kube, releases: list[Release], arguments: dict[str, Any]) -> dict[str, Any]:
        """Hand releases to the engine; the task's result, with a record for each whatever happened."""
        options = Options(
            check=self.check,
            diff=bool(self._task.diff),
            concurrency=max(1, arguments["concurrency"]),
            keep_going=arguments["on_failure"] == "continue",
            recover=arguments["recover"],
            drift=arguments["drift"],
            wait=arguments["wait"],
            timeout_s=arguments["timeout_s"],
            binary=arguments["binary_path"],
        )
        steps = Engine(kube, options, self.say).run(releases)
        for warning in (text for step in steps for text in step.warnings):
            self.say(f"WARNING: {warning}")  # Ansible hides those of its own where it hides what is ok
        result: dict[str, Any] = {
            "changed": any(step.changed for step in steps),
            "releases": [step.record() for step in steps],
        }
        if self._task.diff:
            result["diff"] = [_diff(step) for step in steps if step.changed and step.before != step.after]
        failed = [f"{step.release.name}: {step.reason}" for step in steps if step.failed and step.action != "skipped"]
        if failed:
            result.update(failed=True, msg="; ".join(failed))
        return result


def _diff(step: Step) -> dict[str, str]:
    name = f"{step.release.namespace}/{step.release.name}"
    return {
        "before_header": f"{name} (revision {step.was.revision})" if step.was else f"{name} (not there)",
        "after_header": f"{name} ({step.action})",
        "before": step.before,
        "after": step.after,
    }
