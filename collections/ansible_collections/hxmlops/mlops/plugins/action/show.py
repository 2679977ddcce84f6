# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Show a text file that a stage wrote; see plugins/modules/show.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible_collections.hxmlops.mlops.plugins.module_utils._action import DomainAction


class ActionModule(DomainAction):
    """Prints the file as it is, without the quoting of a debug task."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {"path": {"type": "path", "required": True}}

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        path = Path(arguments["path"])
        if path.exists():
            Display().display(path.read_text(encoding="utf-8"))
        return {"changed": False}
