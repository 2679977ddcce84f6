# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Begin a workflow's run in a domain; see the documentation in plugins/modules/workflow_run.py."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _workflow
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import Domain
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import digest_of, read_json, write_json
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import call, code_digests

SETTINGS = {
    "party": "name the company it belongs to",
    "runtime": "say where its modules and stages run",
    "state": "give the folder for its keys and records",
    "python": "give a Python that has the project's packages",
    "location": "give the ISO 3166-1 code of the country it runs in; grams of CO2e depend on it",
}


class ActionModule(DomainAction):
    """Loads the workflow, checks the domain's part in it, and claims the domain for this ansible-playbook."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "workflow": {"type": "path", "required": True},
        "part": {"type": "str", "choices": ["any", *_workflow.ROLES], "default": "any"},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        workflow = _workflow.load(arguments["workflow"])
        domain, part = self.host, arguments["part"]
        if part != "any" and workflow[part] != domain:
            raise UserError(
                f"domain {domain} is not the {part} of workflow {workflow['id']} ({workflow[part]} is): "
                f"use --limit {workflow[part]}, or name {domain} as {part} in {arguments['workflow']}"
            )
        setting = {name: self._setting(name) for name in SETTINGS}
        if setting["runtime"] != "local":
            raise UserError(f"inventory: hxmlops_runtime of {domain} is {setting['runtime']}; known here: local")
        return {
            **setting,
            "changed": False,
            "id": Domain(setting["state"], domain).claim(os.getppid(), write=not self.check),
            "domain": domain,
            "workflow": {key: workflow[key] for key in ("id", "version", *_workflow.ROLES)},
            "contract": workflow["contract"],
            "contract_digest": self._contract_digest(workflow["contract"], setting),
            "part": workflow["domains"].get(domain, {}),
            "code": code_digests(setting["python"], lock=self._templar.template(self.variables.get("hxmlops_lock"))),
        }

    def _setting(self, name: str) -> str:
        """A domain's variable from the inventory."""
        variable = f"hxmlops_{name}"
        if variable not in self.variables:
            raise UserError(f"inventory: domain {self.host} has no {variable}: {SETTINGS[name]}")
        return str(self._templar.template(self.variables[variable]))

    def _contract_digest(self, contract: dict[str, Any], setting: dict[str, Any]) -> str:
        """Digest of a contract that the programs have found right; each is kept in the domain, for auditors."""
        name = digest_of(contract).removeprefix("sha256:")[:12]
        seen = Path(setting["state"]) / "contracts" / f"{name}.json"
        known = read_json(seen)
        if known and known["contract"] == contract:
            return str(known["contract_digest"])
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / "contract.json", contract)
            printed = call(setting["python"], "hxmlops_stages.contract", str(Path(folder) / "contract.json"))
        digest = str(json.loads(printed)["contract_digest"])
        if not self.check:
            write_json(seen, {"contract": contract, "contract_digest": digest})
        return digest
