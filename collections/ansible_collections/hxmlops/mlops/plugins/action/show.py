# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Show a text, or a text file that a stage wrote; see plugins/modules/show.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction


class ActionModule(DomainAction):
    """Prints it as it is, without the quoting of a debug task."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {"path": {"type": "path"}, "text": {"type": "str"}}

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["text"] is not None:
            Display().display(arguments["text"])
        elif arguments["path"] and Path(arguments["path"]).exists():
            Display().display(Path(arguments["path"]).read_text(encoding="utf-8"))
        return {"changed": False}
