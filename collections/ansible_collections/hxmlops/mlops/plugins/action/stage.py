# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Run one stage of a workflow in a domain; see the documentation in plugins/modules/stage.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import Domain
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._stage_local import BUSY, Stage

WOULD_RUN = "would_run"
GATES = ("fetch", "gate", "promotion")  # never skipped: they check what may have changed since
KEPT = ("changed", "summary", "metrics", "facts", "energy", "criterion", "status")


class ActionModule(DomainAction):
    """Takes a stage's recorded result, or runs its program and waits for it."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "stage": {"type": "str", "required": True},
        "run": {"type": "dict", "required": True},
        "inputs": {"type": "dict", "default": {}},
        "optional": {"type": "list", "elements": "str", "default": []},
        "parameters": {"type": "dict", "default": {}},
        "energy_of": {"type": "list", "elements": "str", "default": []},
        "with_ledger": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name, run = arguments["stage"], arguments["run"]
        unknown = [source for source in arguments["inputs"].values() if str(source).startswith(WOULD_RUN)]
        if unknown:
            return self._would_run(name, f"needs what {unknown[0].partition('/')[0].partition(':')[2]} makes")
        inputs = {key: Path(source) for key, source in arguments["inputs"].items() if source}
        missing = {key: path for key, path in inputs.items() if not path.exists()}
        for key in missing:
            if key not in arguments["optional"]:
                raise UserError(f"{name}: {key} is not there: no file {missing[key]}")
            del inputs[key]
        domain = Domain(run["state"], run["domain"])
        parameters = dict(arguments["parameters"])
        if arguments["with_ledger"]:
            parameters["records"] = domain.latest(run["workflow"]["id"])
        stage = Stage(name, run, parameters, inputs)
        if self.check:
            result = stage.result()
            return self._done(domain, stage, result, changed=False) if result else self._would_run(name, "not done yet")

        adopted = stage.wait_for_orphan(self.say)
        result = None if name in GATES and not adopted else stage.result()
        if result:
            domain.record(result, workflow=run["workflow"]["id"], step=stage.step)
            return self._done(domain, stage, result, changed=adopted)
        volatile = {}
        if arguments["energy_of"]:
            volatile["records"] = domain.energy_since(name, run["workflow"]["id"], arguments["energy_of"])
        code, result = stage.execute(volatile, self.say)
        if code == BUSY:  # a program of a killed run took the lock between the look and the start
            stage.wait_for_orphan(self.say)
            result = stage.result() or {}
        if result:
            domain.record(result, workflow=run["workflow"]["id"], step=stage.step)
        if result.get("status") != "done":
            reason = result.get("reason") or stage.last_line().removeprefix(f"{name}: ")
            return {
                "failed": True,
                "msg": f"{name}: {reason}",
                "criterion": result.get("criterion"),
                "status": result.get("status", "failed"),
                "exit_code": code,
                "folder": str(stage.folder),
            }
        return self._done(domain, stage, result, changed=bool(result["changed"]))

    def _done(self, domain: Domain, stage: Stage, result: dict[str, Any], *, changed: bool) -> dict[str, Any]:
        if not self.check:
            domain.keep_papers(stage.run["workflow"]["id"], stage.step, stage.folder / "output")
        answer = {key: result.get(key) for key in KEPT}
        if changed:
            energy = result.get("energy") or {}
            joules = f", {energy['energy_j']:.1f} J {energy['method']}" if "energy_j" in energy else ""
            self.say(f"{stage.name}: {result['summary']} ({energy.get('wall_s', 0):.1f} s{joules})")
        return {
            **answer,
            "changed": changed,
            "folder": str(stage.folder),
            "output": str(stage.folder / "output"),
            "would_run": False,
        }

    def _would_run(self, name: str, why: str) -> dict[str, Any]:
        self.say(f"{name}: would run ({why})")
        return {
            "changed": True,
            "would_run": True,
            "status": WOULD_RUN,
            "msg": f"{name} would run: {why}",
            "folder": f"{WOULD_RUN}:{name}",
            "output": f"{WOULD_RUN}:{name}",
            "facts": {},
            "metrics": {},
        }
