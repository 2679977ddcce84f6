"""Publish: an artifact that an earlier stage has made, with its statement, into a sharing API.

Its bytes were made once, so publishing again (after an interruption, or at every run) finds the record that is there.
Reads, by `parameters.kind`:

    dataset   training/ and hidden/, each with dataset.age and protection.dsse.json; lineage.parquet, kept in the domain
    model     model.tar, evidence.dsse.json
    accepted  model.tar, evidence.dsse.json, acceptance.dsse.json, recipe.json: into the registry of accepted models
    verdict   acceptance.dsse.json: to the record of the vendor's model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from hxmlops_evidence.digests import canonical, digest_of, sha256_bytes, sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import make_private_folder, write_private
from hxmlops_evidence.statements import Envelope, read
from hxmlops_sharing.client import SharingClient
from hxmlops_stages.peers import connected
from hxmlops_stages.program import Context, Failed, Outcome
from hxmlops_stages.signing import read_json, write_json

type Record = dict[str, Any]


@dataclass(frozen=True)
class Publication:
    kind: str
    name: str
    version: str
    digest: str
    identifier: int
    url: str
    new: bool

    def __str__(self) -> str:
        what = f"verdict on {self.name}" if self.kind == "verdict" else self.name
        return f"{what} {self.version} {'published' if self.new else 'is published already'} at {self.url}"


def run(context: Context) -> Outcome:
    """Leave publication.json, a list of what is published now. `changed` is False when all of it was there already."""
    kinds: dict[str, Callable[[Context, SharingClient], list[Publication]]] = {
        "dataset": _dataset,
        "model": _model,
        "accepted": _accepted,
        "verdict": _verdict,
    }
    kind = context.parameters["kind"]
    with connected(context, context.parameters) as client:
        published = kinds[kind](context, client)
    listed = [{key: value for key, value in vars(each).items() if key != "new"} for each in published]
    write_json(context.output / "publication.json", listed)
    facts = {"dataset": "hxmlops_dataset", "model": "hxmlops_model", "accepted": "hxmlops_accepted"}
    return Outcome(
        ", ".join(str(each) for each in published),
        metrics={"publications": listed},
        changed=any(each.new for each in published),
        facts={facts[kind]: published[0].digest} if kind in facts else {},
    )


def _dataset(context: Context, client: SharingClient) -> list[Publication]:
    published = [_part(context, client, role) for role in ("training", "hidden")]
    kept = context.releases / f"{published[0].version}.parquet"
    make_private_folder(kept.parent)
    write_private(kept, (context.input / "lineage.parquet").read_bytes())
    return published


def _part(context: Context, client: SharingClient, role: str) -> Publication:
    """One part of a release; its digest covers the pair of ciphertext and statement."""
    file, statement_file = (context.input / role / name for name in ("dataset.age", "protection.dsse.json"))
    envelope = read_json(statement_file)
    body = read(envelope)["body"]
    digest = dataset_digest(body["ciphertext_digest"], envelope)
    known = _known(context, client, "dataset", body, digest)
    record = known or client.upload_dataset(
        file,
        statement_file,
        name=body["name"],
        version=body["version"],
        data_type="production",
        tag=context.workflow["id"],
        parameters={"statement": envelope},
        dataset_sha256=body["ciphertext_digest"],
        data_model_sha256=sha256_bytes(canonical(envelope)),
        resume=_resume(context, digest),
    )
    return _publication(context, "dataset", record, digest, new=known is None)


def dataset_digest(ciphertext_digest: str, envelope: Envelope) -> str:
    """A dataset's digest as an artifact: of the encrypted file and the file of its signed statement."""
    return digest_of({"dataset": ciphertext_digest, "dataModel": sha256_bytes(canonical(envelope))})


def _model(context: Context, client: SharingClient) -> list[Publication]:
    return [_model_with(context, client, {"statement": read_json(context.input / "evidence.dsse.json")})]


def _accepted(context: Context, client: SharingClient) -> list[Publication]:
    """The recipe goes along, for whoever serves the model must make raw rows into its features."""
    acceptance = read_json(context.input / "acceptance.dsse.json")
    verdict = read(acceptance)["body"]
    if verdict["decision"] != "accepted":
        raise Refused("decision", f"{verdict['name']} {verdict['version']} was {verdict['decision']}: not published")
    characteristics = {
        "statement": read_json(context.input / "evidence.dsse.json"),
        "acceptance": acceptance,
        "recipe": read_json(context.input / "recipe.json"),
    }
    return [_model_with(context, client, characteristics)]


def _model_with(context: Context, client: SharingClient, characteristics: Record) -> Publication:
    file = context.input / "model.tar"
    statement = read(characteristics["statement"])
    body, digest = statement["body"], sha256_file(file)
    known = _known(context, client, "model", body, digest)
    if known:
        known, added = _with_characteristics(client, known, characteristics)
        return _publication(context, "model", known, digest, new=added)
    record = client.upload_model(
        file,
        name=body["name"],
        version=body["version"],
        status="staging",
        library=body["format"],
        library_version=metadata.version("onnx"),
        domain=statement["issuer"]["domain"],
        tag=context.workflow["id"],
        parameters={},
        characteristics=characteristics,
        sha256=digest,
        resume=_resume(context, digest),
    )
    return _publication(context, "model", record, digest, new=True)


def _verdict(context: Context, client: SharingClient) -> list[Publication]:
    """Beside earlier verdicts on the same model, which stay: as `acceptance`, the next as `acceptance-SEQUENCE`."""
    acceptance = read_json(context.input / "acceptance.dsse.json")
    statement = read(acceptance)
    digest = statement["body"]["artifact_digest"]
    records = [record for record in client.catalog("model", tag=context.workflow["id"]) if record["sha256"] == digest]
    if not records:
        raise Failed(f"no model {digest} at {client.url}: its vendor has withdrawn it, nobody is told the verdict")
    first = records[-1]["characteristics"].get("acceptance", acceptance) == acceptance
    name = "acceptance" if first else f"acceptance-{statement['sequence']}"
    record, added = _with_characteristics(client, records[-1], {name: acceptance})
    return [_publication(context, "verdict", record, digest, new=added)]


def _with_characteristics(client: SharingClient, record: Record, wanted: Record) -> tuple[Record, bool]:
    missing = {name: value for name, value in wanted.items() if record["characteristics"].get(name) != value}
    if not missing:
        return record, False
    return client.set_characteristics(record["modelIdentifier"], missing), True


def _known(
    context: Context, client: SharingClient, kind: Literal["model", "dataset"], body: Record, digest: str
) -> Record | None:
    """The record that an earlier attempt has made. A version of other bytes is left for the API to refuse."""
    records = client.catalog(kind, tag=context.workflow["id"], name=body["name"], version=body["version"])
    return next((record for record in records if record["sha256"] == digest), None)


def _resume(context: Context, digest: str) -> Path:
    """Where the client notes how far it is, so that a run after an interruption goes on there."""
    return context.domain / "uploads" / digest.removeprefix("sha256:")


def _publication(context: Context, kind: str, record: Record, digest: str, *, new: bool) -> Publication:
    url = str(context.parameters["url"])
    if record["sha256"] != digest:
        raise Failed(f"{url} recorded {record['sha256']} for {digest}: it has lost or changed bytes, publish again")
    identifier = record["datasetIdentifier" if kind == "dataset" else "modelIdentifier"]
    return Publication(kind, record["name"], record["version"], digest, int(identifier), url, new)
