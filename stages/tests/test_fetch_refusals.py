"""What fetch refuses: statements that do not hold, bytes that are not the signed ones, tokens that do not open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from hxmlops_evidence import keys
from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.trust import import_card
from hxmlops_sharing.tokens import create_token

from .releases import again, client, released, statement_of, upload_statement
from .worlds import World, assert_refused, done


def altered(world: World) -> dict[str, Any]:
    statement = statement_of(done(world.encrypt()))
    payload = statement["payload"]
    flipped = "A" if payload[400] != "A" else "B"
    return statement | {"payload": payload[:400] + flipped + payload[401:]}


def of_another_workflow(world: World) -> dict[str, Any]:
    return statement_of(done(world.under(id="fraud").encrypt()))


def for_another_audience(world: World) -> dict[str, Any]:
    recipients = {"training": "mno-staging", "hidden": "mno-staging"}
    return statement_of(done(world.encrypt(recipients=recipients)))


def under_another_contract(world: World) -> dict[str, Any]:
    return statement_of(done(world.under(contract={"recipe": {"k": 6}}).encrypt()))


def expired(world: World) -> dict[str, Any]:
    return statement_of(done(world.encrypt(valid_days=0)))


def by_another_owner(world: World) -> dict[str, Any]:
    shutil.rmtree(world.production.folder / "keys")
    keys.make_keys(world.production.folder / "keys")
    return statement_of(done(world.encrypt()))


@pytest.mark.parametrize(
    ("make", "criterion", "says"),
    [
        (altered, "statement|signature", ""),
        (of_another_workflow, "workflow", "is of workflow fraud"),
        (for_another_audience, "audience", "is meant for mno-staging, not software-vendor"),
        (under_another_contract, "contract", "is of another contract"),
        (expired, "expiry", "expired at"),
        (by_another_owner, "signature", "is not pinned"),
    ],
)
def test_a_statement_that_does_not_hold_is_refused(
    world: World, make: Callable[[World], dict[str, Any]], criterion: str, says: str
) -> None:
    upload_statement(world, make(world))

    ran = world.vendor.run("fetch", world.artifact("dataset"))

    assert ran.result["criterion"] in criterion.split("|")
    assert_refused(ran, ran.result["criterion"], says)
    assert not (world.vendor.folder / "artifacts").exists()


def test_a_record_without_a_statement_is_refused(world: World) -> None:
    file = world.folder / "released" / "training.parquet"
    with client(world, "mno-production") as api:
        tag = world.workflow["id"]
        api.upload_dataset(file, file, name=tag, version="1", data_type="mixed", tag=tag, parameters={})

    assert_refused(world.vendor.run("fetch", world.artifact("dataset")), "statement", "not a DSSE envelope")


def test_a_replayed_dataset_is_refused(world: World) -> None:
    [older, _] = released(world).read("publication.json")
    again(world)
    done(world.vendor.run("fetch", world.artifact("dataset")))

    ran = world.vendor.run("fetch", world.artifact("dataset", reference=older["digest"]))

    assert_refused(ran, "sequence", "is older than 2, the last accepted")


def test_a_byte_flipped_in_the_apis_store_is_refused(world: World) -> None:
    encrypted = done(world.encrypt())
    done(world.publish_dataset(encrypted))
    ciphertext = sha256_file(encrypted.output / "training" / "dataset.age")
    stored = world.apis().stored("mno-production", ciphertext)
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(data)

    ran = world.vendor.run("fetch", world.artifact("dataset"))

    assert_refused(ran, "digests", "use none of it, tell its owner")
    assert not list((world.vendor.folder / "artifacts" / "sha256").iterdir())


def test_a_dataset_for_a_key_that_we_no_longer_have_is_refused(world: World) -> None:
    released(world)
    (world.vendor.folder / "keys" / "encryption.age").unlink()
    keys.make_keys(world.vendor.folder / "keys")

    ran = world.vendor.run("fetch", world.artifact("dataset"))

    assert_refused(ran, "recipient", "is encrypted to another key than ours; send mno-production our card")


def test_after_a_change_of_keys_the_next_release_opens(world: World) -> None:
    (world.vendor.folder / "keys" / "encryption.age").unlink()
    keys.make_keys(world.vendor.folder / "keys")
    card = keys.make_card(world.vendor.folder / "keys", party="vendor", domain="software-vendor")
    import_card(world.production.folder / "trust", card, card["fingerprint"])
    released(world)

    done(world.vendor.run("fetch", world.artifact("dataset")))


def test_a_wrong_token_is_refused(world: World) -> None:
    artifact = world.artifact("dataset")
    (world.vendor.folder / "tokens" / "api.token").write_text("guessed")

    ran = world.vendor.run("fetch", artifact)

    assert_refused(ran, "token", "token expired or unknown: ask the owner of")


def test_without_a_token_nothing_is_asked(world: World) -> None:
    artifact = world.artifact("dataset")
    token = world.vendor.folder / "tokens" / "api.token"
    token.unlink()

    ran = world.vendor.run("fetch", artifact)

    assert (ran.code, ran.result["status"]) == (3, "bad_input")
    assert ran.reason.endswith(f"put the one that its owner gives you into {token}")


def test_an_expired_token_is_refused(world: World) -> None:
    artifact = world.artifact("dataset")
    tokens, own = world.apis().folder / "tokens.json", world.vendor.folder / "tokens" / "api.token"
    own.unlink()
    create_token(tokens, own, client="late", scopes=["read"], artifacts=["*"], days=1)
    grants = json.loads(tokens.read_text())
    grants[-1]["expires_at"] = "2026-01-01T00:00:00Z"
    tokens.write_text(json.dumps(grants))

    assert_refused(world.vendor.run("fetch", artifact), "token", "token expired or unknown")


def test_a_token_that_may_only_read_does_not_publish(world: World) -> None:
    encrypted = done(world.encrypt())
    token = world.production.folder / "tokens" / "read.token"
    tokens = world.apis().folder / "tokens.json"
    create_token(tokens, token, client="reader", scopes=["read"], artifacts=["*"], days=1)
    parts = {role: encrypted.output / role for role in ("training", "hidden")}

    api = world.api("mno-production") | {"token": "read.token"}
    ran = world.production.run("publish", {"kind": "dataset", **api}, parts)

    assert_refused(ran, "token", "403")


def test_an_api_that_is_down_is_no_refusal(world: World) -> None:
    ran = world.vendor.run("fetch", world.artifact("dataset", url="http://127.0.0.1:9"))

    assert (ran.code, ran.result["status"]) == (1, "failed")
    assert "http://127.0.0.1:9 cannot be reached" in ran.reason
    assert "check the url and that its server runs" in ran.said
