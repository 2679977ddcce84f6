# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Tokens that a sharing API of this domain accepts; see plugins/modules/sharing_tokens.py."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import read_json, write_private
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import call

RENEW = datetime.timedelta(days=7)
OPTIONAL: dict[str, tuple[str, str | int]] = {
    "purpose": ("--purpose", ""),
    "recipient": ("--recipient", ""),
    "quota_bytes": ("--quota", 0),
    "requests_per_minute": ("--rate", 0),
}
"""What a token may say: its flag, and what it is without."""


class ActionModule(DomainAction):
    """Issues a token to each client that has none, or one that ends soon or says something else."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "tokens": {"type": "path", "required": True},
        "python": {"type": "path", "required": True},
        "state": {"type": "path", "required": True},
        "courier": {"type": "path"},
        "clients": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "client": {"type": "str", "required": True},
                "scopes": {"type": "list", "elements": "str", "default": ["read"]},
                "artifacts": {"type": "list", "elements": "str", "default": ["*"]},
                "days": {"type": "int", "default": 365},
                **{
                    name: {"type": type(without).__name__, "default": without}
                    for name, (_flag, without) in OPTIONAL.items()
                },
            },
        },
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        state, issued = Path(arguments["state"]), []
        for client in arguments["clients"]:
            own = client["client"] == self.host
            file = state / ("tokens" if own else "issued") / f"{client['client']}.token"
            if not self._stands(arguments["tokens"], client, file):
                issued.append(client["client"])
                if not self.check:
                    self._issue(arguments, client, file)
            if arguments["courier"] and not own and not self.check:
                carried = Path(arguments["courier"]) / self.host / file.name
                if not carried.exists() or carried.read_bytes() != file.read_bytes():
                    write_private(carried, file.read_text(encoding="utf-8"))
        return {"changed": bool(issued), "issued": issued}

    def _stands(self, tokens: str, client: dict[str, Any], file: Path) -> bool:
        """True when the file holds a token that the API knows for this client, as described, for some time."""
        if not file.exists():
            return False
        digest = hashlib.sha256(file.read_text(encoding="utf-8").strip().encode()).hexdigest()
        soon = datetime.datetime.now(datetime.UTC) + RENEW
        return any(
            entry["sha256"].removeprefix("sha256:") == digest
            and entry["client"] == client["client"]
            and sorted(entry["scopes"]) == sorted(client["scopes"])
            and sorted(entry["artifacts"]) == sorted(client["artifacts"])
            and all(entry.get(name, without) == client[name] for name, (_flag, without) in OPTIONAL.items())
            and datetime.datetime.fromisoformat(entry["expires_at"]) > soon
            for entry in read_json(Path(tokens)) or []
        )

    def _issue(self, arguments: dict[str, Any], client: dict[str, Any], file: Path) -> None:
        words = ["token", "create", "--tokens", arguments["tokens"], "--client", client["client"]]
        for scope in client["scopes"]:
            words += ["--scope", scope]
        for artifact in client["artifacts"]:
            words += ["--artifact", artifact]
        for name, (flag, _without) in OPTIONAL.items():
            words += [flag, str(client[name])] if client[name] else []
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        call(arguments["python"], "hxmlops_sharing", *words, "--days", str(client["days"]), "--out", str(file))
