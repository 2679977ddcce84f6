"""What must hold before a version is loaded: its bytes are those that were accepted, by keys that are still trusted.

An acceptance that has expired since does not stop a version that was promoted while it was valid: a restart is no
promotion, and an outage would protect nobody. That is logged. A key that was revoked since, does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.statements import Statement, read, verify
from hxmlops_evidence.trust import Trust
from hxmlops_model_server.log import log
from hxmlops_model_server.serving import Version


class Unfit(Exception):
    """A version cannot be served. One line."""


@dataclass(frozen=True)
class Content:
    """What was verified, as the very bytes to load."""

    onnx: bytes
    recipe: dict[str, Any]


def verified(version: Version, trust_folder: Path) -> Content:
    """The version's model and recipe. Unfit when a digest differs, a statement does not hold or a file is missing."""
    try:
        evidence, acceptance = _statements(version, Trust(trust_folder))
        recipe = _json(version.recipe)
        _check_binding(version, evidence, acceptance, recipe)
        return Content(_model(version, evidence["body"]["files"]), recipe)
    except Refused as refusal:
        raise Unfit(str(refusal)) from None
    except BadInput as problem:
        raise Unfit(f"trust: {problem}") from None
    except OSError as problem:
        name = Path(problem.filename).name if problem.filename else "a file"
        raise Unfit(f"{name} cannot be read: {problem.strerror}") from None


def _statements(version: Version, trust: Trust) -> tuple[Statement, Statement]:
    """The vendor's evidence and the acceptor's acceptance, each as it held when it was issued, by keys not revoked."""
    workflow = version.workflow
    vendor, acceptor, server = workflow["vendor"], workflow["acceptor"], workflow["server"]
    statements = []
    for type_, issuer, audience in (("evidence", vendor, acceptor), ("acceptance", acceptor, server)):
        envelope = _json(version.folder / f"{type_}.dsse.json")
        statement = verify(
            envelope,
            trust,
            type_=type_,
            issuer=issuer,
            workflow_id=workflow["id"],
            audience=audience,
            contract_digest=version.contract_digest,
            now=datetime.fromisoformat(read(envelope)["issued_at"]),
        )
        _check_not_revoked(trust, issuer, statement["issuer"]["key_id"])
        if datetime.fromisoformat(statement["expires_at"]) <= datetime.now(UTC):
            log(
                "statement_expired",
                model=version.name,
                version=version.version,
                statement=type_,
                expired_at=statement["expires_at"],
            )
        statements.append(statement)
    return statements[0], statements[1]


def _check_not_revoked(trust: Trust, name: str, key_id: str) -> None:
    try:
        trust.signing_key(name, key_id, at=datetime.now(UTC))
    except Refused as refusal:
        if refusal.criterion == "revocation":
            raise
        # Past its `not_after` only: a key that was rolled over still vouches for what it signed in its time.


def _check_binding(version: Version, evidence: Statement, acceptance: Statement, recipe: dict[str, Any]) -> None:
    """The two statements, the recipe and the listing are about the same thing."""
    body = acceptance["body"]
    if body["decision"] != "accepted":
        raise Unfit("its acceptance says rejected")
    if (body["name"], body["version"]) != (version.name, version.version):
        raise Unfit("its acceptance is for another name or version")
    model_digests = {version.model_digest, evidence["subject_digest"], acceptance["subject_digest"]}
    if len(model_digests) > 1 or digest_of(evidence["body"]["files"]) not in model_digests:
        raise Unfit("its evidence, its acceptance and serving.json name different models")
    recipe_digests = {version.recipe_digest, body["recipe_digest"], evidence["body"]["dataset"]["recipe_digest"]}
    if recipe_digests != {digest_of(recipe)}:
        raise Unfit(f"the digest of {version.recipe.name} is not the one that was accepted")


def _model(version: Version, files: dict[str, str]) -> bytes:
    """The bytes of the ONNX model, after every file of the model was compared with its digest."""
    onnx = None
    for name, digest in files.items():
        path = version.folder / name
        if not path.resolve().is_relative_to(version.folder):
            raise Unfit(f"{name} leads out of the version's folder")
        data = path.read_bytes()
        if sha256_bytes(data) != digest:
            raise Unfit(f"the digest of {name} is not the one that was accepted")
        if path == version.model:
            onnx = data
    if onnx is None:
        raise Unfit(f"{version.model.name} is not among the files that were accepted")
    return onnx


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unfit(f"{path.name} is not a JSON object")
    return document
