# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""A domain's keys, its people's keys and its public card; see plugins/modules/party_keys.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import read_json
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import call

KEYS = ("signing.pem", "encryption.age", "pseudonym.key", "split.key")


class ActionModule(DomainAction):
    """Makes what is missing and never replaces what is there."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "path", "required": True},
        "python": {"type": "path", "required": True},
        "domain": {"type": "str", "required": True},
        "party": {"type": "str", "required": True},
        "people": {"type": "list", "elements": "str", "default": []},
        "offer": {"type": "path"},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        state, python = Path(arguments["state"]), arguments["python"]
        party, domain = arguments["party"], arguments["domain"]
        changed = []
        card = state / "cards" / f"{domain}.json"
        keys = state / "keys"
        if not card.exists() or any(not (keys / name).exists() for name in KEYS):
            changed.append("keys")
            if not self.check:
                call(python, "hxmlops_evidence", "keys", "make", "--folder", str(keys), "--party", party,
                     "--domain", domain, "--card", str(card))  # fmt: skip
        for person in arguments["people"]:
            own = state / "cards" / f"{person}.json"
            needed = (own, state / "people" / f"{person}.pem", state / "trust" / f"{person}.json")
            if all(path.exists() for path in needed):
                continue
            changed.append(person)
            if not self.check:
                call(python, "hxmlops_evidence", "person", "make", "--folder", str(state / "people"),
                     "--party", party, "--person", person, "--card", str(own))  # fmt: skip
                call(python, "hxmlops_evidence", "card", "import", "--trust", str(state / "trust"),
                     "--card", str(own), "--fingerprint", str(read_json(own)["fingerprint"]))  # fmt: skip
        if arguments["offer"]:
            offered = Path(arguments["offer"])
            if not card.exists() or not offered.exists() or offered.read_bytes() != card.read_bytes():
                changed.append("card")
                if not self.check:
                    offered.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    shutil.copyfile(card, offered)
        fingerprint = (read_json(card) or {}).get("fingerprint")
        if changed and fingerprint:
            self.say(f"public card {card}, fingerprint {fingerprint}")
        return {"changed": bool(changed), "made": changed, "card": str(card), "fingerprint": fingerprint}
