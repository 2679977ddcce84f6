"""Fetch: artifacts of peers, found by their signed statements, into this domain.

What an API says of an artifact (its name, version, status) decides nothing: the statement does, and the bytes'
digests. Bytes are kept in `<domain>/artifacts/sha256/` and checked at every run, so a run without news downloads
nothing. Leaves, for each artifact, under the name that `as` gives it:

    dataset   data.parquet (decrypted), recipe.json, protection.dsse.json, protection.json (the statement in it)
    model     model.tar, evidence.dsse.json
    accepted  model.tar, acceptance.dsse.json, recipe.json
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hxmlops_evidence import gates
from hxmlops_evidence.digests import canonical, digest_of, sha256_bytes
from hxmlops_evidence.errors import Refused, one_line
from hxmlops_evidence.keys import ENCRYPTION, load_recipient, recipient_key_id
from hxmlops_evidence.sequences import check_sequence, record_sequence
from hxmlops_evidence.trust import Trust
from hxmlops_sharing.client import SharingClient, SharingError
from hxmlops_stages.peers import connected
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.publish import dataset_digest
from hxmlops_stages.signing import Signed, relied_on, write_envelope, write_json
from hxmlops_stages.store import Store

type Record = dict[str, Any]
type Artifact = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What tells the kinds apart: the statement's type and issuer, where a record holds it, who makes such a one."""

    name: str
    api: Literal["dataset", "model"]
    type: str
    issuer: str
    holder: str
    place: str
    playbook: str


KINDS = {
    "dataset": Kind("dataset", "dataset", "protection", "owner", "parameters", "statement", "release_dataset.yml"),
    "model": Kind("model", "model", "evidence", "vendor", "characteristics", "statement", "build_model.yml"),
    "accepted": Kind(
        "accepted model", "model", "acceptance", "acceptor", "characteristics", "acceptance", "accept_model.yml"
    ),
}


@dataclass(frozen=True)
class Candidate:
    """A record of an API, and what its statement claims: nothing of it is verified."""

    record: Record
    envelope: Any
    claim: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        body = self.claim.get("body")
        return body if isinstance(body, dict) else {}

    @property
    def sequence(self) -> int:
        sequence = self.claim.get("sequence")
        return sequence if isinstance(sequence, int) else 0

    @property
    def title(self) -> str:
        return one_line(f"{self.record.get('name')} {self.record.get('version')}")[:100]

    def digest(self, kind: Kind) -> str | None:
        """The artifact's digest: as the statement has it, for a model as the API has it."""
        if kind.type == "protection" and "ciphertext_digest" in self.body:
            return dataset_digest(self.body["ciphertext_digest"], self.envelope)
        return self.body.get("artifact_digest") if kind.type == "acceptance" else self.record.get("sha256")


def run(context: Context) -> Outcome:
    """Refused with the newest candidate's reason when none will do, or "not_found" when there is none yet."""
    store, taken, arrived = Store(context.domain), {}, False
    expiries = []
    for artifact in context.parameters["artifacts"]:
        kind = KINDS[artifact["kind"]]
        with connected(context, artifact) as client:
            candidate, signed = _choose(context, client, artifact, kind)
            digest = str(candidate.digest(kind))
            arrived |= _TAKE[artifact["kind"]](context, client, store, artifact, candidate, signed)
        body = signed.statement["body"]
        taken[artifact["as"]] = {"name": body["name"], "version": body["version"], "digest": digest}
        expiries.append(signed.statement["expires_at"])
        context.say(f"{kind.name} {body['name']} {body['version']} of {signed.statement['issuer']['domain']}")
    return Outcome(
        ", ".join(f"{each['name']} {each['version']}" for each in taken.values()),
        metrics={"artifacts": taken},
        changed=arrived,
        valid_until=min(expiries),
    )


def _choose(context: Context, client: SharingClient, artifact: Artifact, kind: Kind) -> tuple[Candidate, Signed]:
    """The candidate that is asked for, or else that with the highest sequence, whose statement can be relied on."""
    reference, issuer = artifact.get("reference"), context.workflow[kind.issuer]
    candidates = _candidates(client, context.workflow["id"], artifact.get("role"), kind)
    if reference:
        candidates = [each for each in candidates if each.digest(kind) == reference]
    first_refusal = None
    for candidate in sorted(candidates, key=lambda each: each.sequence, reverse=True):
        try:
            signed = relied_on(context, candidate.envelope, kind.type, issuer)
            _check_sequence(context, signed)
            return candidate, signed
        except Refused as refusal:
            context.say(f"{kind.name} {candidate.title} ignored: {refusal.reason}")
            first_refusal = first_refusal or Refused(refusal.criterion, f"{candidate.title}: {refusal.reason}")
    if first_refusal:
        raise first_refusal
    if reference:
        raise Refused("not_found", f"no {kind.name} {reference} at {client.url}: give one that is listed there")
    raise Refused(
        "not_found",
        f"no {kind.name} for workflow {context.workflow['id']} at {client.url} for {context.domain_name} yet: "
        f"run playbooks/{kind.playbook} in {issuer} first",
    )


def _candidates(client: SharingClient, workflow_id: str, role: str | None, kind: Kind) -> list[Candidate]:
    candidates = []
    for record in client.catalog(kind.api, tag=workflow_id):
        holder = record.get(kind.holder)
        envelope = holder.get(kind.place) if isinstance(holder, dict) else None
        candidate = Candidate(record, envelope, _claim(envelope))
        if role is None or candidate.body.get("role", role) == role:
            candidates.append(candidate)
    return candidates


def _claim(envelope: Any) -> dict[str, Any]:
    """What a statement claims, or nothing. It is used to sort candidates before they are verified."""
    try:
        claim = json.loads(base64.b64decode(envelope["payload"]))
    except (TypeError, KeyError, ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def _check_sequence(context: Context, signed: Signed) -> None:
    check_sequence(context.domain, **_sequence(signed))


def _sequence(signed: Signed) -> dict[str, Any]:
    return {
        "issuer": signed.statement["issuer"]["domain"],
        "line": gates.line(signed.statement["type"], signed.statement["workflow_id"]),
        "sequence": signed.statement["sequence"],
        "statement_digest": signed.digest,
    }


def _take_dataset(
    context: Context,
    client: SharingClient,
    store: Store,
    artifact: Artifact,
    candidate: Candidate,
    signed: Signed,
) -> bool:
    """Download, pass the gate, decrypt. This is the dataset's gate, so its sequence is recorded here."""
    import pyrage

    body, key_file = signed.statement["body"], context.domain / "keys" / ENCRYPTION
    ciphertext = body["ciphertext_digest"]

    def download(target: Path) -> None:
        folder = target.with_suffix(".pair")  # what came of it stays there when it breaks off
        pair = {"dataset": ciphertext, "dataModel": sha256_bytes(canonical(candidate.envelope))}
        record = {"sha256": digest_of(pair), "datasetSha256": ciphertext, "dataModelSha256": pair["dataModel"]}
        try:
            client.download_dataset(record, folder, receipt=_receipt(context, record["sha256"]))
        except SharingError:
            with suppress(OSError):
                folder.rmdir()
            raise
        (folder / "dataset").replace(target)
        shutil.rmtree(folder, ignore_errors=True)

    def decrypt(target: Path) -> None:
        identity = pyrage.x25519.Identity.from_str(key_file.read_text().strip())
        try:
            pyrage.decrypt_file(str(store.path(ciphertext)), str(target), [identity])
        except pyrage.DecryptError:
            raise Refused("decryption", "the dataset does not open with our key; ask for a new release") from None
        gates.gate_plaintext(plaintext=target, protection=signed.envelope)

    arrived = store.have(ciphertext, download)
    gates.gate_dataset(
        ciphertext=store.path(ciphertext),
        protection=signed.envelope,
        trust=Trust(context.domain / "trust"),
        domain=context.domain,
        owner=context.workflow["owner"],
        role=artifact["role"],
        workflow_id=context.workflow["id"],
        audience=context.domain_name,
        contract_digest=context.contract_digest,
        recipient_key_id=recipient_key_id(load_recipient(key_file)),
    )
    arrived |= store.have(body["plaintext_digest"], decrypt)
    folder = context.output / artifact["as"]
    store.put_into(folder / "data.parquet", body["plaintext_digest"])
    (folder / "recipe.json").write_bytes(canonical(body["recipe"]))
    write_envelope(folder / "protection.dsse.json", signed.envelope)
    write_json(folder / "protection.json", signed.statement)
    record_sequence(context.domain, **_sequence(signed))
    return arrived


def _download(context: Context, client: SharingClient, digest: str, target: Path) -> None:
    client.download_artifact(digest, target, receipt=_receipt(context, digest))


def _receipt(context: Context, digest: str) -> Path:
    """Where the peer's signed word stays that it handed this over, if it gives one."""
    return context.domain / "receipts" / f"{digest.removeprefix('sha256:')}.json"


def _take_model(
    context: Context,
    client: SharingClient,
    store: Store,
    artifact: Artifact,
    candidate: Candidate,
    signed: Signed,
) -> bool:
    digest = str(candidate.record.get("sha256"))
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise Refused("digests", f"{candidate.title}: {client.url} gives no SHA-256 of it; is this a sharing API?")
    arrived = store.have(digest, partial(_download, context, client, digest))
    folder = context.output / artifact["as"]
    store.put_into(folder / "model.tar", digest)
    write_envelope(folder / "evidence.dsse.json", signed.envelope)
    return arrived


def _take_accepted(
    context: Context,
    client: SharingClient,
    store: Store,
    artifact: Artifact,
    candidate: Candidate,
    signed: Signed,
) -> bool:
    body = signed.statement["body"]
    recipe = candidate.record["characteristics"].get("recipe")
    if digest_of(recipe) != body["recipe_digest"]:
        raise Refused("recipe", f"{candidate.title}: its recipe is not the accepted one; have it published again")
    digest = body["artifact_digest"]
    arrived = store.have(digest, partial(_download, context, client, digest))
    folder = context.output / artifact["as"]
    store.put_into(folder / "model.tar", digest)
    (folder / "recipe.json").write_bytes(canonical(recipe))
    write_envelope(folder / "acceptance.dsse.json", signed.envelope)
    return arrived


_TAKE = {"dataset": _take_dataset, "model": _take_model, "accepted": _take_accepted}
