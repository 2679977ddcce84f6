"""Digests are SHA-256, written `sha256:` and 64 hexadecimal digits; JSON is digested in its canonical form
(RFC 8785).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785

from hxmlops_evidence.errors import BadInput

type Json = Any
"""What `json.loads` gives: mappings with string keys, lists, strings, numbers, booleans, None."""


def sha256_bytes(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha256_file(path: Path) -> str:
    """Digest of a file of any size, read in pieces. OSError when it cannot be read."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def canonical(value: Json) -> bytes:
    """The one byte form of a JSON value. BadInput for what JSON cannot say: NaN, infinities, integers beyond
    2**53.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError):
        raise BadInput("no canonical JSON: give finite numbers, integers below 2**53, text, lists, mappings") from None


def digest_of(value: Json) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return sha256_bytes(canonical(value))


def files_digest(folder: Path) -> tuple[dict[str, str], str]:
    """Every file below `folder`, hidden ones too: ({POSIX relative path: digest} sorted by path, digest of
    that mapping).

    BadInput for anything but regular files and folders.
    """
    files = {path.relative_to(folder).as_posix(): path for path in walk(folder)}
    digests = {name: sha256_file(files[name]) for name in sorted(files)}
    return digests, digest_of(digests)


def walk(folder: Path) -> list[Path]:
    """The regular files below `folder`. BadInput for links and special files, which have no content of their
    own.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadInput(f"{path}: neither file nor folder; remove links and special files")
        if path.is_file():
            found.append(path)
    return found
