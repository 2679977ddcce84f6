# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Pin peers' public keys and take their tokens; see plugins/modules/peers.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import read_json, write_private
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import call


class ActionModule(DomainAction):
    """Imports what lies at the places that ``hxmlops_peers`` names; what is there already stays."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "path", "required": True},
        "python": {"type": "path", "required": True},
        "peers": {"type": "dict", "required": True},
        "what": {"type": "str", "choices": ["keys", "tokens"], "required": True},
        "trust_unseen": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        state, changed = Path(arguments["state"]), []
        for name, peer in sorted(arguments["peers"].items()):
            if arguments["what"] == "keys" and peer.get("card"):
                done = self._pin(state, name, Path(peer["card"]), peer.get("fingerprint"), arguments)
            elif arguments["what"] == "tokens" and peer.get("token_file"):
                done = self._token(state, name, Path(peer["token_file"]))
            else:
                done = False
            changed += [name] if done else []
        return {"changed": bool(changed), "imported": changed}

    def _pin(self, state: Path, name: str, card: Path, fingerprint: str | None, arguments: dict[str, Any]) -> bool:
        offered = read_json(card)
        if offered is None:
            if self.check:
                return True
            raise UserError(f"peer {name}: no public card at {card}: ask {name} for the one that its keys.yml printed")
        pinned = read_json(state / "trust" / f"{name}.json") or {"keys": []}
        known = {key["key_id"] for key in pinned["keys"]}
        if all(key["key_id"] in known for key in offered["keys"]):
            return False
        if not fingerprint:
            if not arguments["trust_unseen"]:
                raise UserError(
                    f"peer {name}: compare the fingerprint of {card} with {name} over another channel, then set "
                    f"hxmlops_peers.{name}.fingerprint to it"
                )
            fingerprint = str(offered["fingerprint"])
        if not self.check:
            call(arguments["python"], "hxmlops_evidence", "card", "import", "--trust", str(state / "trust"),
                 "--card", str(card), "--fingerprint", fingerprint)  # fmt: skip
        return True

    def _token(self, state: Path, name: str, source: Path) -> bool:
        target = state / "tokens" / f"{name}.token"
        if source == target:
            return False
        try:
            token = source.read_text(encoding="utf-8")
        except OSError:
            if self.check:
                return True
            raise UserError(f"peer {name}: no token at {source}: ask {name} to issue one to this domain") from None
        if target.exists() and target.read_text(encoding="utf-8") == token:
            return False
        if not self.check:
            write_private(target, token)
        return True
