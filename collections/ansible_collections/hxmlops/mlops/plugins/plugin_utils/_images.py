# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Every image that manifests make a cluster pull: of containers, and of what programs start later."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# host[:port]/path[:tag][@digest]: a registry's host has a dot, a port, or is localhost
_REFERENCE = re.compile(
    r"^(localhost|[a-z0-9.-]+\.[a-z0-9-]+(:\d+)?|[a-z0-9-]+:\d+)/[a-z0-9._/-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$"
)


def images(objects: Iterable[dict[str, Any]]) -> set[str]:
    """References of all images in objects: ``image`` of containers, and arguments and variables that name one."""
    found: set[str] = set()
    for thing in objects:
        _look(thing, found)
    return found


def _look(value: Any, found: set[str]) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("image"), str) and "name" in value:
            found.add(value["image"])
        elif "image" in str(value.get("name", "")).lower() and _REFERENCE.match(str(value.get("value", ""))):
            found.add(value["value"])
        for inner in value.values():
            _look(inner, found)
    elif isinstance(value, list):
        for before, entry in zip([None, *value], value, strict=False):
            if isinstance(entry, str):
                option, _equals, rest = entry.rpartition("=")
                named = option or (before if isinstance(before, str) else "")
                if named.startswith("-") and "image" in named and _REFERENCE.match(rest):
                    found.add(rest)
            _look(entry, found)
