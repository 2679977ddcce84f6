"""Receipts: the server's signed word on what it handed over, so that both parties can prove it.

A receipt is a DSSE envelope; its payload is canonical JSON (RFC 8785) of a `Delivery`. It names the line of the audit
in which the delivery ended, by number and digest, and so vouches for every line before that too.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hxmlops_evidence import dsse
from hxmlops_evidence.digests import canonical, digest_of, sha256_file
from hxmlops_evidence.dsse import Envelope
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.keys import Card, key_id, load_public_key, load_signing_key
from hxmlops_evidence.trust import check_card, parse_time, short
from hxmlops_sharing.settings import SettingsError

PAYLOAD_TYPE = "application/vnd.hxmlops.delivery+json"
SCHEMA_VERSION = "1.0"
DATASET_FILES = ("dataset", "dataModel")

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$")]


class ReceiptError(Exception):
    """A receipt proves nothing: one line with the reason."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AuditLine(_Part):
    """Where in the server's audit the delivery ended."""

    id: Count
    digest: Digest


class Delivery(_Part):
    """What a receipt says. `ranges` are first and last byte, as in HTTP; none: all was asked for.

    `complete`: all that was asked for left the server, which is not to say that it arrived.
    """

    type: Literal["delivery"]
    schema_version: Annotated[str, Field(pattern=r"^1\.[0-9]{1,4}$")]
    issuer: str
    client: str
    recipient: str
    purpose: str
    artifact: Digest
    kind: Literal["model", "dataset"]
    name: str
    version: str
    bytes: Count
    ranges: list[Annotated[list[Count], Field(min_length=2, max_length=2)]]
    complete: bool
    started_at: Time
    ended_at: Time
    request_id: str
    audit: AuditLine


class Signer:
    """Signs receipts as `issuer`, by the ECDSA P-256 key in a file. SettingsError when there is none."""

    def __init__(self, key: Path, issuer: str) -> None:
        try:
            self._key = load_signing_key(key)
        except (BadInput, OSError) as error:
            raise SettingsError(f"signing key: {error}") from None
        self.issuer = issuer

    def receipt(self, download: Mapping[str, Any], delivered: Mapping[str, Any]) -> Envelope:
        """The receipt of a delivery, from the two lines of the audit that it has, as they are stored.

        `download` says in its detail for which `recipient` and `purpose` the caller's token was; `delivered` how many
        `bytes` went out, of which `ranges`, and whether the answer was `complete`.
        """
        detail = delivered["detail"]
        delivery = Delivery(
            type="delivery",
            schema_version=SCHEMA_VERSION,
            issuer=self.issuer,
            client=download["client"],
            recipient=download["detail"].get("recipient", ""),
            purpose=download["detail"].get("purpose", ""),
            artifact=download["sha256"],
            kind=download["kind"],
            name=download["name"],
            version=download["version"],
            bytes=detail["bytes"],
            ranges=detail.get("ranges", []),
            complete=detail["complete"],
            started_at=download["at"],
            ended_at=delivered["at"],
            request_id=download["request_id"],
            audit=AuditLine(id=delivered["id"], digest=delivered["digest"]),
        )
        return dsse.seal(PAYLOAD_TYPE, canonical(delivery.model_dump()), self._key)


def verify_receipt(envelope: Envelope, public_key_pem: str) -> dict[str, Any]:
    """What a receipt says, when this key has signed it. ReceiptError when it has not, or it is no receipt."""
    payload, signer, signature = _unpacked(envelope)
    try:
        public = load_public_key(public_key_pem)
    except BadInput as error:
        raise ReceiptError(str(error)) from None
    if key_id(public) != signer:
        raise ReceiptError(f"it says it was signed by key {short(signer)}, which is not the one given")
    if not dsse.is_signed_by(public, PAYLOAD_TYPE, payload, signature):
        raise ReceiptError("its signature does not fit: it was altered, or never signed by this key")
    return _delivery(payload)


def key_of_card(envelope: Envelope, card: Card) -> str:
    """The PEM of the card's key that a receipt names. ReceiptError when there is none, or not at that time."""
    payload, signer, _ = _unpacked(envelope)
    try:
        check_card(card)
    except BadInput as error:
        raise ReceiptError(str(error)) from None
    ended_at = parse_time(_delivery(payload)["ended_at"])
    for key in card["keys"]:
        if key["purpose"] == "signing" and key["key_id"] == signer:
            if (key["not_before"] and ended_at < parse_time(key["not_before"])) or (
                key["not_after"] and ended_at > parse_time(key["not_after"])
            ):
                raise ReceiptError(f"key {short(signer)} of {card['name']} was not valid at {ended_at:%FT%TZ}")
            return str(key["public"])
    raise ReceiptError(f"it was signed by key {short(signer)}, which is not on the card of {card['name']}")


def check_artifact(delivery: Mapping[str, Any], path: Path) -> None:
    """ReceiptError unless what is at `path` is the artifact; of a dataset its zip file, or a folder with its files."""
    found = digest_of_dataset(path) if delivery["kind"] == "dataset" else sha256_file(path)
    if found != delivery["artifact"]:
        raise ReceiptError(f"{path} is {found}, the receipt is about {delivery['artifact']}")


def digest_of_dataset(path: Path) -> str:
    """Digest of the pair of a dataset and its data model."""
    if path.is_dir():
        return digest_of({name: sha256_file(path / name) for name in DATASET_FILES})
    try:
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted(DATASET_FILES):
                raise ReceiptError(f"{path} should have two entries, {' and '.join(DATASET_FILES)}")
            return digest_of({name: _sha256_entry(archive, name) for name in DATASET_FILES})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ReceiptError(f"{path} is no zip file of a dataset: {error}") from None


def _sha256_entry(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as entry:
        return f"sha256:{hashlib.file_digest(entry, 'sha256').hexdigest()}"  # type: ignore[arg-type]


def _unpacked(envelope: Envelope) -> tuple[bytes, str, bytes]:
    try:
        return dsse.unpacked(envelope, PAYLOAD_TYPE)
    except (ValueError, AttributeError) as error:
        raise ReceiptError(f"it is no receipt: {error}") from None


def _delivery(payload: bytes) -> dict[str, Any]:
    try:
        said = json.loads(payload)
        if canonical(said) != payload:
            raise ReceiptError("its payload is not in canonical form (RFC 8785)")
        return Delivery.model_validate(said).model_dump()
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(step) for step in wrong["loc"])
        raise ReceiptError(f"{place or 'its payload'}: {wrong['msg'].lower()}") from None
    except (ValueError, RecursionError, BadInput):
        raise ReceiptError("its payload is no JSON") from None
