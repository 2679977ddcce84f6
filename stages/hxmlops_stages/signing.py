"""Statements of this domain: issued with its key, and those of others that it relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from hxmlops_evidence import statements
from hxmlops_evidence.digests import canonical
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.keys import load_signing_key
from hxmlops_evidence.statements import Envelope, Statement
from hxmlops_evidence.trust import Trust
from hxmlops_stages.program import Context


class Signed(NamedTuple):
    """A statement, its signed form, and the digest by which others refer to it."""

    statement: Statement
    envelope: Envelope
    digest: str


def issue(
    context: Context,
    type_: str,
    *,
    audience: str,
    subject_digest: str,
    inputs: Mapping[str, str],
    sequence: int,
    body: Mapping[str, Any],
    key: Path | None = None,
    issued_at: datetime | None = None,
) -> Signed:
    """A statement valid for `parameters.valid_days`, signed with the domain's key unless another is given."""
    statement = statements.make(
        type_,
        workflow_id=context.workflow["id"],
        contract_digest=context.contract_digest,
        run_id=context.run_id,
        issuer={"party": context.party, "domain": context.domain_name},
        audience=audience,
        subject_digest=subject_digest,
        inputs=inputs,
        sequence=sequence,
        valid_days=context.parameters["valid_days"],
        body=body,
        issued_at=issued_at,
    )
    envelope = statements.sign(statement, load_signing_key(key or context.domain / "keys" / "signing.pem"))
    return Signed(statement, envelope, statements.statement_digest(envelope))


def relied_on(context: Context, envelope: Envelope, type_: str, issuer: str) -> Signed:
    """A peer's statement for this workflow, contract and domain. Refused otherwise."""
    statement = statements.verify(
        envelope,
        Trust(context.domain / "trust"),
        type_=type_,
        issuer=issuer,
        workflow_id=context.workflow["id"],
        audience=context.domain_name,
        contract_digest=context.contract_digest,
    )
    return Signed(statement, envelope, statements.statement_digest(envelope))


def read_json(path: Path) -> Any:
    """BadInput when the file is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"input {path.name}: no such file") from None
    except ValueError:
        raise BadInput(f"input {path.name}: not JSON") from None


def write_envelope(path: Path, envelope: Envelope) -> None:
    """In canonical form, so that a receiver can tell the file's digest from the envelope."""
    path.write_bytes(canonical(envelope))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
