# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Files as the collection writes them: digests, JSON, and writes that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

try:  # ten times as fast, where PyYAML was built with it
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes, ``sha256:<hex>``, read as a stream."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(path: Path) -> dict[str, str]:
    """Digests of the files below a folder by their relative POSIX path; of one file under the name ``.``."""
    if path.is_file():
        return {".": sha256_file(path)}
    return {
        str(file.relative_to(path).as_posix()): sha256_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def digest_of(value: Any) -> str:
    """Digest of a JSON value in a fixed form: for the collection's own keys, never for a signed statement."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def parse_yaml(text: str) -> Any:
    """The one YAML document in a text. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=SafeLoader)


def parse_yaml_all(text: str) -> list[Any]:
    """All YAML documents in a text. Raises yaml.YAMLError."""
    return list(yaml.load_all(text, Loader=SafeLoader))


def read_json(path: Path) -> Any:
    """The JSON value in a file, or None where there is no whole one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step: readers see the old one or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value as :func:`write_private` does."""
    write_private(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
