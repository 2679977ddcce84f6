# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What may be shown: manifests without Secrets' data, values and texts without what is secret in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

MASK = "********"
SHORTEST = 6  # shorter texts are too common to be taken for a secret in running text
_SECRET = re.compile(
    r"(passw|passphrase|secret$|secret[_-]?(key|access)|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)",
    re.I,
)
_NAME = re.compile(r"(existing|name|ref|file|path|automount|enabled|url)", re.I)


def values(given: Any, key: str = "") -> Any:
    """Chart values with everything masked whose key says that it is a secret (not one that only names a Secret)."""
    if isinstance(given, dict):
        return {name: values(value, str(name)) for name, value in given.items()}
    if isinstance(given, list):
        return [values(value, key) for value in given]
    secret = isinstance(given, str) and given and _SECRET.search(key) and not _NAME.search(key)
    return MASK if secret else given


def secrets_of(given: Any, key: str = "") -> set[str]:
    """Those texts in chart values that :func:`values` masks."""
    if isinstance(given, dict):
        return {text for name, value in given.items() for text in secrets_of(value, str(name))}
    if isinstance(given, list):
        return {text for value in given for text in secrets_of(value, key)}
    return {given} if isinstance(given, str) and values(given, key) == MASK else set()


def manifest(objects: Iterable[dict[str, Any]]) -> str:
    """Objects as YAML in a fixed order and form, for a diff; Secrets' data masked."""
    shown = []
    for thing in objects:
        if thing["kind"] == "Secret":
            masked = {part: dict.fromkeys(thing[part], MASK) for part in ("data", "stringData") if thing.get(part)}
            thing = {**thing, **masked}
        shown.append(thing)
    shown.sort(key=lambda thing: (thing["kind"], thing["metadata"]["name"]))
    return yaml.safe_dump_all(shown, sort_keys=True, default_flow_style=False, width=110) if shown else ""


def scrubbed(text: str, known: Iterable[str]) -> str:
    """A text of others (an error, a log) without secrets that we know."""
    for secret in sorted({secret for secret in known if len(secret) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
