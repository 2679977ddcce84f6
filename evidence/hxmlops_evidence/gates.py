"""The gates: a receiver's checks of an artifact and its statements. Every gate fails closed.

Each takes keywords only, returns the criteria that were passed, [{"criterion": name, "passed": True}], and
raises Refused at the first that is not. None records anything: when the artifact has been taken in, its
receiver calls `sequences.record_sequence` for the line `line(type, workflow id)`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hxmlops_evidence.artifact import unpack
from hxmlops_evidence.bom import BOM, check_bom
from hxmlops_evidence.digests import digest_of, sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.formats import check_model_format
from hxmlops_evidence.sequences import check_sequence
from hxmlops_evidence.signature import SIGNATURE, read_document, verify_folder
from hxmlops_evidence.statements import Envelope, Statement, read, statement_digest, verify
from hxmlops_evidence.trust import Trust

EVIDENCE = "evidence.json"
"""The evidence's signed envelope, inside the model's tar."""

NOT_CONTENT = (EVIDENCE, BOM, SIGNATURE)
"""What a model's folder holds beside the model's own files."""

type Criteria = list[dict[str, Any]]

_STATEMENT = ("statement", "signature", "revocation", "workflow", "audience", "contract", "expiry")


def line(type_: str, workflow_id: str) -> str:
    """The line within which the sequence of an issuer's statements rises."""
    return f"{type_}/{workflow_id}"


def gate_dataset(
    *,
    ciphertext: Path,
    protection: Envelope,
    trust: Trust,
    domain: Path,
    owner: str,
    role: str,
    workflow_id: str,
    audience: str,
    contract_digest: str,
    recipient_key_id: str,
    now: datetime | None = None,
) -> Criteria:
    """A dataset before it is decrypted; `gate_plaintext` goes on from there.

    `owner` and `audience` are domains' names, `domain` the folder with this domain's sequences, `role` is
    training or hidden, `recipient_key_id` that of this domain's encryption key.
    """
    statement = verify(
        protection,
        trust,
        type_="protection",
        issuer=owner,
        workflow_id=workflow_id,
        audience=audience,
        contract_digest=contract_digest,
        now=now,
    )
    body = statement["body"]
    _check_sequence(domain, protection, statement)
    if body["role"] != role:
        raise Refused("role", f"the dataset of {owner} is for {body['role']}, not {role}")
    if body["recipient_key_id"] != recipient_key_id:
        raise Refused("recipient", f"the dataset is encrypted to another key than ours; send {owner} our card")
    if sha256_file(ciphertext) != body["ciphertext_digest"]:
        raise Refused("digests", f"the dataset's file is not the one that {owner} signed; fetch it again")
    if digest_of(body["recipe"]) != body["recipe_digest"]:
        raise Refused("recipe", f"the recipe is not what its digest says; ask {owner} to release the dataset again")
    return _passed(*_STATEMENT, "sequence", "role", "recipient", "digests", "recipe")


def gate_plaintext(*, plaintext: Path, protection: Envelope) -> Criteria:
    """A decrypted dataset, whose `protection` has passed `gate_dataset`."""
    body = read(protection)["body"]
    if sha256_file(plaintext) != body["plaintext_digest"]:
        raise Refused("plaintext", "the decrypted dataset is not the one that its owner signed; ask for a new release")
    return _passed("plaintext")


def gate_model(
    *,
    tar: Path,
    folder: Path,
    evidence: Envelope | None,
    trust: Trust,
    domain: Path,
    vendor: str,
    workflow_id: str,
    audience: str,
    contract_digest: str,
    metrics: Collection[str],
    format_policy: Mapping[str, Collection[str]],
    energy_budget_j: float,
    energy_j_upper: Callable[[Mapping[str, Any]], float],
    now: datetime | None = None,
) -> Criteria:
    """A vendor's model, before anything of it is loaded. Unpacks `tar` into `folder`, which is gone when it
    is refused.

    `evidence` is the catalogue's envelope, when there is one: it must say what the tar's own says. `vendor`
    and `audience` are domains' names, `domain` the folder with this domain's sequences. `metrics` are the
    names that the contract declares, `format_policy` has `allow` and `allow_pickles` (see `formats`).
    `energy_j_upper` gives, from the raw counters of an energy record (cpu_s, wall_s, vcpu, memory_gb), the
    upper bound in J by this domain's own coefficients; the sum over all attempts must not exceed
    `energy_budget_j`.
    """
    with _unpacked(tar, folder):
        envelope, statement = _check_content(folder, trust, vendor, workflow_id, audience, contract_digest, now)
        if evidence is not None and statement_digest(evidence) != statement_digest(envelope):
            raise Refused(
                "evidence", "the catalogue's evidence is not the one in the model's tar; ask the vendor which"
            )
        _check_sequence(domain, envelope, statement)
        _check_bom(folder, statement)
        body = statement["body"]
        if body["format"] not in format_policy["allow"]:
            raise Refused("format", f"format {body['format']} is not allowed here; see format_policy.allow")
        check_model_format(folder, allow=[body["format"]], allow_pickles=format_policy["allow_pickles"])
        if odd := set(body["metrics"]) ^ set(metrics):
            raise Refused("metrics", f"{', '.join(sorted(odd))}: in the contract or in the evidence, not in both")
        _check_energy(body["stages"], energy_budget_j, energy_j_upper)
    content = ("evidence", "sequence", "members", "digests", "bom", "format", "metrics", "energy_budget")
    return _passed("archive", *_STATEMENT, *content)


def gate_acceptance(
    *,
    tar: Path,
    folder: Path,
    acceptance: Envelope,
    trust: Trust,
    domain: Path,
    acceptor: str,
    vendor: str,
    workflow_id: str,
    audience: str,
    contract_digest: str,
    now: datetime | None = None,
) -> Criteria:
    """An accepted model in the domain that is to serve it: the acceptor's verdict, and again the vendor's
    signature.

    Unpacks `tar` into `folder`, which is gone when it is refused. `acceptor`, `vendor` and `audience` are
    domains' names; the vendor's key must still be pinned and not revoked here. `domain` is the folder with
    this domain's sequences.
    """
    statement = verify(
        acceptance,
        trust,
        type_="acceptance",
        issuer=acceptor,
        workflow_id=workflow_id,
        audience=audience,
        contract_digest=contract_digest,
        now=now,
    )
    body = statement["body"]
    _check_sequence(domain, acceptance, statement)
    if body["decision"] != "accepted" or not all(criterion["passed"] for criterion in body["criteria"]):
        raise Refused("decision", f"{acceptor} did not accept this model; serve one that it accepted")
    if body["artifact_digest"] != sha256_file(tar):
        raise Refused("artifact", f"{acceptor} accepted another artifact than this one; fetch the accepted one")
    with _unpacked(tar, folder):
        _, evidence = _check_content(folder, trust, vendor, workflow_id, acceptor, contract_digest, now)
        _check_bom(folder, evidence)
        accepted = (body["vendor"], statement["subject_digest"], body["recipe_digest"], body["name"], body["version"])
        made = evidence["body"]
        recipe_digest = made["dataset"]["recipe_digest"]
        if accepted != (vendor, evidence["subject_digest"], recipe_digest, made["name"], made["version"]):
            raise Refused("artifact", f"{acceptor}'s acceptance speaks of another model than the evidence in the tar")
    return _passed(*_STATEMENT, "sequence", "decision", "artifact", "archive", "members", "digests", "bom")


def gate_approval(
    *,
    approval: Envelope,
    acceptance: Envelope,
    trust: Trust,
    party: str,
    workflow_id: str,
    target_domain: str,
    contract_digest: str,
    now: datetime | None = None,
) -> Criteria:
    """A person's approval to serve in `target_domain` the model of an acceptance that has passed
    `gate_acceptance`.

    The person must be pinned as one of `party`, and be another than the acceptance's proposer, by name and by
    key.
    """
    statement = verify(
        approval,
        trust,
        type_="approval",
        issuer=None,
        workflow_id=workflow_id,
        audience=target_domain,
        contract_digest=contract_digest,
        now=now,
    )
    body, accepted = statement["body"], read(acceptance)
    proposer, person = accepted["body"]["proposer"], body["person"]
    if statement["issuer"]["party"] != party:
        raise Refused("approver", f"{person} is not of {party}; have it approved by a person of {party}")
    if person == proposer["person"] or statement["issuer"]["key_id"] == proposer["key_id"]:
        raise Refused("approver", f"{person} proposed this model; have it approved by somebody else")
    if body["acceptance_digest"] != statement_digest(acceptance):
        raise Refused("acceptance", f"{person} approved another acceptance than this one; ask for a new approval")
    artifact = accepted["body"]["artifact_digest"], accepted["subject_digest"]
    if (body["artifact_digest"], statement["subject_digest"]) != artifact:
        raise Refused("artifact", f"{person} approved another artifact than this one; ask for a new approval")
    if body["target_domain"] != target_domain:
        raise Refused("target", f"{person} approved it for {body['target_domain']}, not {target_domain}")
    return _passed(*_STATEMENT, "approver", "acceptance", "artifact", "target")


def _check_content(
    folder: Path,
    trust: Trust,
    vendor: str,
    workflow_id: str,
    audience: str,
    contract_digest: str,
    now: datetime | None,
) -> tuple[Envelope, Statement]:
    """The evidence in an unpacked model: signed by the vendor, as the model is, and speaking of exactly its
    files.
    """
    try:
        envelope = json.loads(read_document(folder / EVIDENCE))
    except FileNotFoundError:
        raise Refused("evidence", f"the model has no {EVIDENCE}; ask {vendor} for it") from None
    except (ValueError, RecursionError):
        raise Refused("evidence", f"{EVIDENCE} is not JSON; ask {vendor} for the model again") from None
    now = now or datetime.now(UTC)
    statement = verify(
        envelope,
        trust,
        type_="evidence",
        issuer=vendor,
        workflow_id=workflow_id,
        audience=audience,
        contract_digest=contract_digest,
        now=now,
    )
    signed = verify_folder(folder, trust.signing_key(vendor, statement["issuer"]["key_id"], at=now))
    files = {path: digest for path, digest in signed.items() if path not in NOT_CONTENT}
    if files != statement["body"]["files"] or digest_of(files) != statement["subject_digest"]:
        raise Refused("digests", f"the model's files are not those of its evidence; ask {vendor} for the model again")
    return envelope, statement


def _check_bom(folder: Path, evidence: Statement) -> None:
    path = folder / BOM
    if not path.is_file():
        raise Refused("bom", f"the model has no {BOM}; ask its vendor for it")
    if sha256_file(path) != evidence["body"]["bom_digest"]:
        raise Refused("bom", f"{BOM} is not the one of the evidence; ask the vendor for the model again")
    check_bom(read_document(path), evidence["body"]["files"])


def _check_energy(
    stages: list[dict[str, Any]], budget_j: float, energy_j_upper: Callable[[Mapping[str, Any]], float]
) -> None:
    """The greater of what this domain computes and what the vendor declares counts, for every attempt."""
    if not any(record["stage"] == "training" and record["cpu_s"] > 0 for record in stages):
        raise Refused("energy_budget", "the evidence has no energy of a training; ask the vendor for the counters")
    total_j = sum(max(energy_j_upper(record), record["energy_j_upper"]) for record in stages)
    if not total_j <= budget_j:
        raise Refused(
            "energy_budget",
            f"up to {total_j:.0f} J over {len(stages)} attempts, above the budget of {budget_j:.0f} J",
        )


def _check_sequence(domain: Path, envelope: Envelope, statement: Statement) -> None:
    check_sequence(
        domain,
        issuer=statement["issuer"]["domain"],
        line=line(statement["type"], statement["workflow_id"]),
        sequence=statement["sequence"],
        statement_digest=statement_digest(envelope),
    )


@contextmanager
def _unpacked(tar: Path, folder: Path) -> Iterator[None]:
    unpack(tar, folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _passed(*criteria: str) -> Criteria:
    return [{"criterion": criterion, "passed": True} for criterion in dict.fromkeys(criteria)]
