"""Receipts: signed by the server, verified by whoever holds its key; nothing else passes for one."""

import base64
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_evidence import dsse
from hxmlops_evidence.digests import canonical, digest_of, sha256_bytes
from hxmlops_evidence.keys import Card, fingerprint, load_signing_key, make_keys, make_person
from hxmlops_evidence.statements import PAYLOAD_TYPE as STATEMENT
from hxmlops_sharing.__main__ import main
from hxmlops_sharing.deliveries import PAYLOAD_TYPE, ReceiptError, Signer, key_of_card, verify_receipt
from hxmlops_sharing.settings import SettingsError

type Start = Callable[..., AbstractContextManager[httpx.Client]]
type Printed = pytest.CaptureFixture[str]

BYTES = b"the model"
DOWNLOAD: dict[str, Any] = {
    "id": 7, "at": "2026-11-25T20:00:00.000001Z", "client": "mno-staging", "action": "download", "kind": "model",
    "identifier": 1, "name": "churn", "version": "1.0", "sha256": sha256_bytes(BYTES),
    "detail": {"recipient": "mno", "purpose": "testing"}, "request_id": "abc", "refers_to": None,
    "previous": digest_of(1), "digest": digest_of(2),
}  # fmt: skip
DELIVERED: dict[str, Any] = DOWNLOAD | {
    "id": 9, "at": "2026-11-25T20:00:02.000001Z", "action": "delivered", "refers_to": 7, "digest": digest_of(3),
    "detail": {"bytes": len(BYTES), "ranges": [], "complete": True, "status": 200},
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("vendor", "other"):
        (folder / f"{name}.json").write_text(json.dumps(make_person(folder, party="p", person=name)))
    for name in ("vendor", "other"):
        (folder / f"{name}.pub").write_text(card(folder, name)["keys"][0]["public"])
    return folder


def card(keys: Path, name: str = "vendor") -> Card:
    read: Card = json.loads((keys / f"{name}.json").read_text())
    return read


def receipt(keys: Path, download: Any = None, delivered: Any = None) -> dsse.Envelope:
    signer = Signer(keys / "vendor.pem", "software-vendor")
    return signer.receipt(download or DOWNLOAD, delivered or DELIVERED)


def pem(keys: Path, name: str = "vendor") -> str:
    return (keys / f"{name}.pub").read_text()


def test_a_receipt_says_what_was_handed_over_to_whom(keys: Path) -> None:
    assert verify_receipt(receipt(keys), pem(keys)) == {
        "type": "delivery",
        "schema_version": "1.0",
        "issuer": "software-vendor",
        "client": "mno-staging",
        "recipient": "mno",
        "purpose": "testing",
        "artifact": sha256_bytes(BYTES),
        "kind": "model",
        "name": "churn",
        "version": "1.0",
        "bytes": 9,
        "ranges": [],
        "complete": True,
        "started_at": "2026-11-25T20:00:00.000001Z",
        "ended_at": "2026-11-25T20:00:02.000001Z",
        "request_id": "abc",
        "audit": {"id": 9, "digest": digest_of(3)},
    }


def test_a_part_is_said_to_be_one(keys: Path) -> None:
    part = DELIVERED | {"detail": {"bytes": 3, "ranges": [[0, 1], [5, 5]], "complete": False}}
    said = verify_receipt(receipt(keys, delivered=part), pem(keys))
    assert (said["bytes"], said["ranges"], said["complete"]) == (3, [[0, 1], [5, 5]], False)


def test_names_in_any_script_survive(keys: Path) -> None:
    odd = DOWNLOAD | {"name": "ürün\u2066 <b>", "version": "1/../2", "client": "客户"}
    assert verify_receipt(receipt(keys, download=odd), pem(keys))["name"] == odd["name"]


def altered(envelope: dsse.Envelope, **changes: Any) -> dsse.Envelope:
    """With another payload and the old signature."""
    said = json.loads(base64.b64decode(envelope["payload"])) | changes
    return {**envelope, "payload": base64.b64encode(canonical(said)).decode()}


@pytest.mark.parametrize(
    ("asked", "ranges", "size"),
    [
        (None, [], 9000),
        ("bytes=2-4", [[2, 4]], 3),
        ("bytes=-1", [[8999, 8999]], 1),
        ("bytes=0-1,7000-7001", [[0, 1], [7000, 7001]], 272),  # the body, its parts have heads
    ],
)
def test_a_server_says_which_bytes_it_handed_over(
    start: Start, keys: Path, asked: str | None, ranges: list[list[int]], size: int
) -> None:
    with start(signing_key=keys / "vendor.pem", issuer="software-vendor") as api:
        api.post("/api/v1/model", data={"name": "churn", "version": "1"}, files={"file": BYTES * 1000})
        answer = api.get("/api/v1/model/1", headers={"Range": asked} if asked else {})
        path = answer.headers["X-HXMLOps-Receipt"]
        while (envelope := api.get(path)).status_code == 409:  # its end is being written down
            time.sleep(0.01)
    said = verify_receipt(envelope.json(), pem(keys))
    assert (said["artifact"], said["ranges"], said["bytes"]) == (sha256_bytes(BYTES * 1000), ranges, size)
    assert said["complete"]


@pytest.mark.parametrize(
    ("member", "value"),
    [("client", "someone"), ("bytes", 10), ("complete", False), ("artifact", digest_of(0)), ("recipient", "x")],
)
def test_a_receipt_that_was_altered(keys: Path, member: str, value: Any) -> None:
    with pytest.raises(ReceiptError, match="its signature does not fit"):
        verify_receipt(altered(receipt(keys), **{member: value}), pem(keys))


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), part=st.sampled_from(["payload", "sig"]))
@settings(deadline=None)
def test_every_flipped_bit_is_noticed(keys: Path, position: int, bit: int, part: str) -> None:
    envelope = receipt(keys)
    holder = envelope if part == "payload" else envelope["signatures"][0]
    data = bytearray(base64.b64decode(holder[part]))
    data[position % len(data)] ^= 1 << bit
    holder[part] = base64.b64encode(data).decode()
    with pytest.raises(ReceiptError):
        verify_receipt(envelope, pem(keys))


def test_another_key_or_none(keys: Path) -> None:
    with pytest.raises(ReceiptError, match=r"it says it was signed by key sha256:.*, which is not the one given"):
        verify_receipt(receipt(keys), pem(keys, "other"))
    with pytest.raises(ReceiptError, match="not an ECDSA P-256 public key in PEM"):
        verify_receipt(receipt(keys), "-----BEGIN NONSENSE-----")
    forged = receipt(keys)
    forged["signatures"][0]["keyid"] = card(keys, "other")["keys"][0]["key_id"]
    with pytest.raises(ReceiptError, match="its signature does not fit"):
        verify_receipt(forged, pem(keys, "other"))


def sealed(keys: Path, payload: bytes, type_: str = PAYLOAD_TYPE) -> dsse.Envelope:
    return dsse.seal(type_, payload, load_signing_key(keys / "vendor.pem"))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "its payload is no JSON"),
        (b"[" * 100_000, "its payload is no JSON"),
        (b'{"a": NaN}', "its payload is no JSON"),
        (b'{"b":1, "a":2}', "its payload is not in canonical form"),
        (b"[]", "its payload: input should be"),
        (b"{}", "type: field required"),
    ],
)
def test_what_the_key_signed_but_is_no_delivery(keys: Path, payload: bytes, reason: str) -> None:
    with pytest.raises(ReceiptError, match=reason):
        verify_receipt(sealed(keys, payload), pem(keys))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"more": 1}, "more: extra inputs"),
        ({"schema_version": "2.0"}, "schema_version: string should match"),
        ({"schema_version": "1.0\n"}, "schema_version: string should match"),
        ({"bytes": -1}, "bytes: "),
        ({"bytes": "9"}, "bytes: "),
        ({"bytes": True}, "bytes: "),
        ({"complete": 1}, "complete: "),
        ({"ranges": [[1]]}, r"ranges\.0: "),
        ({"artifact": "sha256:" + "0" * 63}, "artifact: "),
        ({"audit": {"id": 1}}, r"audit\.digest: field required"),
        ({"ended_at": "yesterday"}, "ended_at: "),
    ],
)
def test_the_form_is_strict(keys: Path, change: dict[str, Any], reason: str) -> None:
    said = verify_receipt(receipt(keys), pem(keys)) | change
    with pytest.raises(ReceiptError, match=reason):
        verify_receipt(sealed(keys, canonical(said)), pem(keys))


def test_a_statement_of_another_kind_is_no_receipt(keys: Path) -> None:
    payload = base64.b64decode(receipt(keys)["payload"])
    with pytest.raises(ReceiptError, match="it is no receipt: payloadType is not"):
        verify_receipt(sealed(keys, payload, STATEMENT), pem(keys))


@pytest.mark.parametrize("envelope", [None, [], 5, "x", {}, {"payloadType": PAYLOAD_TYPE, "signatures": [{}]}])
def test_what_is_no_envelope(keys: Path, envelope: Any) -> None:
    with pytest.raises(ReceiptError, match="it is no receipt"):
        verify_receipt(envelope, pem(keys))
    with pytest.raises(ReceiptError, match="it is no receipt"):
        key_of_card(envelope, card(keys))


def test_the_key_is_taken_from_a_card(keys: Path) -> None:
    assert key_of_card(receipt(keys), card(keys)) == pem(keys)
    with pytest.raises(ReceiptError, match="is not on the card of other"):
        key_of_card(receipt(keys), card(keys, "other"))
    with pytest.raises(ReceiptError, match="its fingerprint is not that of its keys"):
        key_of_card(receipt(keys), card(keys) | {"party": "another"})


@pytest.mark.parametrize(
    ("limits", "valid"),
    [
        ({"not_after": "2026-11-25T20:00:01Z"}, False),
        ({"not_before": "2026-11-25T20:00:03Z"}, False),
        ({"not_before": "2026-11-25T20:00:00Z", "not_after": "2026-11-25T20:00:03Z"}, True),
    ],
)
def test_a_key_counts_in_its_time_only(keys: Path, limits: dict[str, str], valid: bool) -> None:
    limited = card(keys)
    limited["keys"][0] |= limits
    limited["fingerprint"] = fingerprint(limited)
    if valid:
        assert key_of_card(receipt(keys), limited) == pem(keys)
    else:
        with pytest.raises(ReceiptError, match="was not valid at 2026-11-25T20:00:02Z"):
            key_of_card(receipt(keys), limited)


def test_a_server_does_not_start_with_an_unusable_key(tmp_path: Path) -> None:
    for content in (None, b"", b"-----BEGIN PRIVATE KEY-----"):
        path = tmp_path / "key.pem"
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(SettingsError, match=r"signing key: .*key\.pem: no"):
            Signer(path, "x")


def verify(tmp_path: Path, envelope: Any, *more: str) -> int:
    path = tmp_path / "receipt.json"
    path.write_text(envelope if isinstance(envelope, str) else json.dumps(envelope))
    return main(["receipt", "verify", "--receipt", str(path), *more])


def test_the_command_verifies_by_key_and_by_card(keys: Path, tmp_path: Path, capsys: Printed) -> None:
    model = tmp_path / "model.tar"
    model.write_bytes(BYTES)
    for whose in (("--key", keys / "vendor.pub"), ("--card", keys / "vendor.json")):
        assert verify(tmp_path, receipt(keys), *map(str, whose), "--file", str(model)) == 0
        assert json.loads(capsys.readouterr().out)["client"] == "mno-staging"


@pytest.mark.parametrize(
    ("envelope", "whose", "message"),
    [
        ("{", "vendor.pub", "receipt.json: not JSON; ask for it again"),
        ("{}", "vendor.pub", "receipt.json: it is no receipt: not a DSSE envelope"),
        (None, "other.pub", "receipt.json: it says it was signed by key sha256:"),
        (None, "none.pub", "No such file or directory"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    keys: Path, tmp_path: Path, capsys: Printed, envelope: str | None, whose: str, message: str
) -> None:
    assert verify(tmp_path, envelope or receipt(keys), "--key", str(keys / whose)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_the_command_compares_the_artifact(keys: Path, tmp_path: Path, capsys: Printed) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x")
    key = ("--key", str(keys / "vendor.pub"))
    assert verify(tmp_path, receipt(keys), *key, "--file", str(other)) == 2
    assert f"{other} is {sha256_bytes(b'x')}, the receipt is about {sha256_bytes(BYTES)}" in capsys.readouterr().err


def test_a_dataset_is_compared_as_zip_or_folder(keys: Path, tmp_path: Path, capsys: Printed) -> None:
    parts = {"dataset": b"rows", "dataModel": b"columns"}
    pair = digest_of({name: sha256_bytes(data) for name, data in parts.items()})
    envelope = receipt(keys, download=DOWNLOAD | {"kind": "dataset", "sha256": pair})
    key = ("--key", str(keys / "vendor.pub"))
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    zips = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
    for name, method in zips.items():
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for each in parts:
                archive.write(folder / each, each)
    for file in (folder, *(tmp_path / name for name in zips)):
        assert verify(tmp_path, envelope, *key, "--file", str(file)) == 0
    with zipfile.ZipFile(tmp_path / "more", "w") as archive:
        for each in (*parts, "extra"):
            archive.writestr(each, b"rows")
    whole = (tmp_path / "stored").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-10])
    (tmp_path / "broken").write_bytes(whole.replace(b"rows", b"rowz"))
    (tmp_path / "text").write_bytes(b"text")
    (folder / "dataset").write_bytes(b"other rows")
    capsys.readouterr()
    for wrong in ("more", "cut", "broken", "text", "dataset"):
        assert verify(tmp_path, envelope, *key, "--file", str(tmp_path / wrong)) == 2, wrong
        assert capsys.readouterr().err.count("\n") == 1


def test_a_key_for_receipts(tmp_path: Path, capsys: Printed) -> None:
    path = tmp_path / "private" / "receipts.pem"
    assert main(["key", "create", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    public = said[said.index("-----BEGIN PUBLIC KEY-----") :]
    assert said.startswith(f"created: the signing key in {path}\nfingerprint: sha256:")
    assert "PRIVATE" not in said
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert main(["key", "create", "--out", str(path)]) == 0
    assert capsys.readouterr().out == said.replace("created", "kept", 1)
    assert path.read_bytes() == before
    verify_receipt(Signer(path, "x").receipt(DOWNLOAD, DELIVERED), public)
    path.write_text("x")
    assert main(["key", "create", "--out", str(path)]) == 2
    assert "no unencrypted ECDSA P-256 key in PEM" in capsys.readouterr().err


def test_a_domains_own_key_and_card_serve_too(tmp_path: Path) -> None:
    make_keys(tmp_path)
    from hxmlops_evidence.keys import make_card

    domain = make_card(tmp_path, party="vendor", domain="software-vendor")
    envelope = Signer(tmp_path / "signing.pem", "software-vendor").receipt(DOWNLOAD, DELIVERED)
    assert verify_receipt(envelope, key_of_card(envelope, domain))["issuer"] == "software-vendor"
