"""Artifacts on their way between domains, over real sharing APIs that are trusted with nothing."""

from __future__ import annotations

import json
import shutil
import stat
from typing import Any

from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.statements import read

from .releases import again, client, released, statement_of, upload_statement
from .samples import RECIPE
from .worlds import Accepted, World, assert_refused, done

# Datasets


def test_a_published_release_leaves_its_lineage_for_the_next_one(world: World) -> None:
    released(world)
    kept = list((world.production.folder / "releases").rglob("*.parquet"))
    assert [file.read_bytes() for file in kept] == [b"who was released in which class"]
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600


def test_a_dataset_arrives_decrypted_with_its_recipe_and_statement(world: World) -> None:
    publication = released(world)

    ran = done(world.vendor.run("fetch", world.artifact("dataset")))

    plaintext = world.folder / "released" / "training.parquet"
    assert (ran.output / "it" / "data.parquet").read_bytes() == plaintext.read_bytes()
    assert ran.read("it/recipe.json") == RECIPE
    assert ran.read("it/protection.json") == read(ran.read("it/protection.dsse.json"))
    assert ran.read("it/protection.json")["body"]["role"] == "training"
    [training, hidden] = publication.read("publication.json")
    assert ran.result["metrics"]["artifacts"]["it"]["digest"] == training["digest"]
    assert publication.result["facts"] == {"hxmlops_dataset": training["digest"]}
    assert hidden["name"] == f"{training['name']}-hidden"
    assert ran.result["valid_until"] == ran.read("it/protection.json")["expires_at"]


def test_the_hidden_part_is_for_the_acceptor(world: World) -> None:
    released(world)

    ran = done(world.staging.run("fetch", world.artifact("dataset", role="hidden")))

    plaintext = world.folder / "released" / "hidden.parquet"
    assert (ran.output / "it" / "data.parquet").read_bytes() == plaintext.read_bytes()


def test_nothing_new_is_no_news(world: World) -> None:
    released(world)
    first = done(world.vendor.run("fetch", world.artifact("dataset")))
    assert first.result["changed"] is True

    second = done(world.vendor.run("fetch", world.artifact("dataset")))
    assert second.result["changed"] is False
    assert second.result["outputs"] == first.result["outputs"]


def test_bytes_damaged_in_the_domains_store_are_fetched_again(world: World) -> None:
    released(world)
    done(world.vendor.run("fetch", world.artifact("dataset")))
    for file in (world.vendor.folder / "artifacts" / "sha256").iterdir():
        file.chmod(0o600)
        file.write_bytes(b"damaged")

    ran = done(world.vendor.run("fetch", world.artifact("dataset")))

    assert ran.result["changed"] is True
    plaintext = world.folder / "released" / "training.parquet"
    assert sha256_file(ran.output / "it" / "data.parquet") == sha256_file(plaintext)


def test_the_highest_sequence_is_taken_whatever_the_api_says(world: World) -> None:
    """Records lie about version and order: an old statement is published last, as version 99."""
    old = done(world.encrypt())
    world.publish_dataset(old)
    shutil.copytree(old.output, world.folder / "old")
    again(world)
    with client(world, "mno-production") as api:
        api.upload_dataset(
            world.folder / "old" / "training" / "dataset.age",
            world.folder / "old" / "training" / "protection.dsse.json",
            name=world.workflow["id"],
            version="99",
            data_type="production",
            tag=world.workflow["id"],
            parameters={"statement": json.loads((world.folder / "old/training/protection.dsse.json").read_bytes())},
        )

    ran = done(world.vendor.run("fetch", world.artifact("dataset")))

    assert ran.read("it/protection.json")["sequence"] == 2


def test_a_reference_asks_for_one_artifact(world: World) -> None:
    [older, _] = released(world).read("publication.json")
    again(world)

    ran = done(world.vendor.run("fetch", world.artifact("dataset", reference=older["digest"])))

    assert ran.read("it/protection.json")["sequence"] == 1


def test_an_unknown_reference(world: World) -> None:
    released(world)
    unknown = "sha256:" + "0" * 64

    ran = world.vendor.run("fetch", world.artifact("dataset", reference=unknown))

    assert_refused(ran, "not_found", f"no dataset {unknown} at")


def test_nothing_released_yet(world: World) -> None:
    ran = world.vendor.run("fetch", world.artifact("dataset"))

    assert_refused(
        ran,
        "not_found",
        "for software-vendor yet: run playbooks/release_dataset.yml in mno-production first",
    )


def test_an_older_one_that_holds_is_taken_when_the_newest_does_not(world: World) -> None:
    released(world)
    again(world, valid_days=0)

    ran = done(world.vendor.run("fetch", world.artifact("dataset")))

    assert ran.read("it/protection.json")["sequence"] == 1
    assert f"fetch: dataset {world.workflow['id']} 1.0.2 ignored:" in ran.progress
    assert "expired at" in ran.progress


# Publishing


def test_publishing_again_finds_what_is_there(world: World) -> None:
    encrypted = done(world.encrypt())
    first, second = (done(world.publish_dataset(encrypted)) for _ in range(2))

    assert (first.result["changed"], second.result["changed"]) == (True, False)
    assert second.read("publication.json") == first.read("publication.json")
    with client(world, "mno-production") as api:
        assert len(api.catalog("dataset", tag=world.workflow["id"])) == 2  # training and hidden


def test_a_publication_that_was_cut_off_is_completed(world: World) -> None:
    """Only the first of two parts has arrived."""
    encrypted = done(world.encrypt())
    upload_statement(world, statement_of(encrypted))

    ran = done(world.publish_dataset(encrypted))

    assert [each["name"] for each in ran.read("publication.json")] == [
        world.workflow["id"],
        f"{world.workflow['id']}-hidden",
    ]
    with client(world, "mno-production") as api:
        assert len(api.catalog("dataset", tag=world.workflow["id"])) == 2


def test_a_version_is_never_published_with_other_bytes(world: World) -> None:
    released(world)
    (world.production.folder / "sequences.json").unlink()  # a domain that has lost count

    ran = world.publish_dataset(done(world.encrypt(valid_days=80)))

    assert (ran.code, ran.result["status"]) == (1, "failed")
    assert "409" in ran.reason


# Models, verdicts, and the registry of accepted models


def test_a_model_arrives_as_it_was_signed(accepted: Accepted) -> None:
    world = accepted.world
    published = done(world.publish_model(accepted.signed))

    ran = done(world.staging.run("fetch", world.artifact("model")))

    assert (ran.output / "it" / "model.tar").read_bytes() == accepted.tar.read_bytes()
    assert ran.read("it/evidence.dsse.json") == json.loads(accepted.evidence.read_bytes())
    assert published.result["facts"] == {"hxmlops_model": sha256_file(accepted.tar)}
    assert done(world.publish_model(accepted.signed)).result["changed"] is False
    assert done(world.staging.run("fetch", world.artifact("model"))).result["changed"] is False


def test_a_byte_flipped_in_a_model_is_refused(accepted: Accepted) -> None:
    world = accepted.world.under(id=f"{accepted.world.workflow['id']}-flipped")
    encrypted = done(world.encrypt())
    signed = done(world.sign_model(encrypted.output / "training" / "protection.dsse.json"))
    done(world.publish_model(signed))
    stored = world.apis().stored("software-vendor", sha256_file(signed.output / "model.tar"))
    data = bytearray(stored.read_bytes())
    data[700] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(data)

    ran = world.staging.run("fetch", world.artifact("model"))

    assert_refused(ran, "digests", "use none of them, tell its owner")


def test_the_vendor_is_told_by_criterion_and_told_once(accepted: Accepted) -> None:
    world = accepted.world
    done(world.publish_model(accepted.signed))
    verdict = done(world.accept(accepted.gate, accepted.hidden, valid_days=32))

    first, second = (done(world.tell_vendor(verdict)) for _ in range(2))

    assert (first.result["changed"], second.result["changed"]) == (True, False)
    with client(world, "software-vendor") as api:
        [record] = api.catalog("model", tag=world.workflow["id"])
    assert record["characteristics"]["acceptance"] == verdict.read("acceptance.dsse.json")
    told = read(record["characteristics"]["acceptance"])["body"]
    assert told["decision"] == "accepted"
    assert all(each.keys() == {"criterion", "passed"} for each in told["criteria"])
    assert "statement" in record["characteristics"]
    assert done(world.publish_model(accepted.signed)).result["changed"] is False  # the verdict does not disturb it


def test_another_verdict_on_the_same_model_stands_beside_the_first(accepted: Accepted) -> None:
    world = accepted.world
    done(world.publish_model(accepted.signed))
    first = done(world.accept(accepted.gate, accepted.hidden))
    second = done(world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auc": 0.99}))

    def told() -> dict[str, Any]:
        with client(world, "software-vendor") as api:
            [record] = api.catalog("model", tag=world.workflow["id"])
        characteristics: dict[str, Any] = record["characteristics"]
        return characteristics

    done(world.tell_vendor(first))
    before = told()
    changed = [done(world.tell_vendor(second)).result["changed"] for _ in range(2)]

    assert changed == [True, False]
    envelope = second.read("acceptance.dsse.json")
    assert told() == before | {f"acceptance-{read(envelope)['sequence']}": envelope}


def test_a_verdict_on_a_model_that_is_gone(accepted: Accepted) -> None:
    world = accepted.world.under(id="withdrawn")

    ran = world.tell_vendor(accepted.acceptance)

    assert (ran.code, ran.result["status"]) == (1, "failed")
    assert "its vendor has withdrawn it" in ran.reason


def test_an_accepted_model_arrives_with_its_verdict_and_recipe(accepted: Accepted) -> None:
    world = accepted.world
    done(world.publish_accepted(accepted.signed, accepted.acceptance))

    ran = done(world.production.run("fetch", world.artifact("accepted")))

    assert (ran.output / "it" / "model.tar").read_bytes() == accepted.tar.read_bytes()
    assert ran.read("it/acceptance.dsse.json") == json.loads(accepted.verdict.read_bytes())
    assert ran.read("it/recipe.json") == RECIPE
    assert done(world.publish_accepted(accepted.signed, accepted.acceptance)).result["changed"] is False


def test_a_renewed_acceptance_takes_the_place_of_the_first(accepted: Accepted) -> None:
    world = accepted.world
    done(world.publish_accepted(accepted.signed, accepted.acceptance))
    renewed = done(world.accept(accepted.gate, accepted.hidden, valid_days=31))

    assert done(world.publish_accepted(accepted.signed, renewed)).result["changed"] is True

    ran = done(world.production.run("fetch", world.artifact("accepted")))
    assert ran.read("it/acceptance.dsse.json") == renewed.read("acceptance.dsse.json")


def test_a_rejected_model_is_not_published(accepted: Accepted) -> None:
    rejected = done(accepted.world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auc": 0.99}))

    ran = accepted.world.publish_accepted(accepted.signed, rejected)

    assert_refused(ran, "decision", "was rejected: not published")


def test_a_registry_with_another_recipe_is_refused(accepted: Accepted) -> None:
    world = accepted.world
    [published] = done(world.publish_accepted(accepted.signed, accepted.acceptance)).read("publication.json")
    with client(world, "mno-staging") as api:
        api.set_characteristics(published["identifier"], {"recipe": RECIPE | {"drop": []}})

    ran = world.production.run("fetch", world.artifact("accepted"))

    assert_refused(ran, "recipe", "its recipe is not the accepted one")
