"""Digests that clients declare: Content-Digest and Repr-Digest (RFC 9530), and Digest (RFC 3230) from before."""

import base64
import binascii
import re
from collections.abc import Mapping

from hxmlops_sharing.problems import Problem

_DICTIONARY_MEMBER = re.compile(r"\s*([a-z0-9_.*-]+)=:([A-Za-z0-9+/=]*):\s*")
_OLD_MEMBER = re.compile(r"\s*([A-Za-z0-9-]+)=([A-Za-z0-9+/=]+)\s*")


def declared_digest(headers: Mapping[str, str], *names: str) -> str | None:
    """The SHA-256 (`sha256:…`) that these fields declare; None when there is none. Problem 400 for an unusable one."""
    found = {_sha256(name, headers[name]) for name in names if name in headers} - {None}
    if len(found) > 1:
        raise Problem(400, "malformed", f"{' and '.join(names)} declare different digests")
    return found.pop() if found else None


def structured(sha256: str) -> str:
    """`sha256:…` as the value of Content-Digest and Repr-Digest."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256.removeprefix('sha256:'))).decode()}:"


def _sha256(name: str, value: str) -> str | None:
    """Other algorithms are ignored, as the standards allow."""
    form = _OLD_MEMBER if name.lower() == "digest" else _DICTIONARY_MEMBER
    digest = None
    for member in value.split(","):
        match = form.fullmatch(member)
        if match is None:
            raise Problem(400, "malformed", f"{name} should be `{_example(name)}`")
        if match[1].lower() != "sha-256":
            continue
        try:
            raw = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != 32 or digest is not None:
            raise Problem(400, "malformed", f"{name} should have one SHA-256, in base64")
        digest = f"sha256:{raw.hex()}"
    return digest


def _example(name: str) -> str:
    return "SHA-256=<base64>" if name.lower() == "digest" else "sha-256=:<base64>:"
