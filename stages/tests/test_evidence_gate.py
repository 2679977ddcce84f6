"""The vendor's signed model, and the acceptor's gate, which lets in nothing but that."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hxmlops_evidence import keys
from hxmlops_evidence.artifact import pack
from hxmlops_evidence.digests import files_digest, sha256_bytes, sha256_file
from hxmlops_evidence.signature import sign_folder
from hxmlops_evidence.statements import read, statement_digest

from .samples import TESTED, energy_record
from .worlds import Accepted, Ran, assert_refused, done


def gate(at: Accepted, tar: Path | None = None, evidence: Path | None = None, **policy: object) -> Ran:
    return at.world.gate_model(tar or at.tar, evidence or at.evidence, at.hidden, **policy)


def altered(at: Accepted, alter: Callable[[Path], object]) -> Path:
    """The signed model's tar with its folder altered after it was signed."""
    folder = at.world.folder / "altered"
    shutil.copytree(at.signed.output / "model", folder)
    alter(folder)
    pack(folder, at.world.folder / "altered.tar")
    return at.world.folder / "altered.tar"


# Evidence


def test_the_artifact_is_the_model_its_evidence_its_bill_and_one_signature_over_all(accepted: Accepted) -> None:
    with tarfile.open(accepted.tar) as tar:
        assert tar.getnames() == ["bom.cdx.json", "evidence.json", "model.onnx", "model.sig"]
    statement, bom = read(accepted.signed.read("evidence.dsse.json")), accepted.signed.read("model/bom.cdx.json")
    body = statement["body"]
    files, content = files_digest(accepted.world.folder / "made" / "model")
    assert (body["files"], statement["subject_digest"]) == (files, content)
    assert (body["name"], body["version"], body["format"]) == (accepted.world.workflow["id"], "1.0.1", "onnx")
    assert (statement["audience"], body["metrics"]) == ("mno-staging", TESTED["metrics"])
    assert body["bom_digest"] == sha256_file(accepted.signed.output / "model" / "bom.cdx.json")
    assert [record["stage"] for record in body["stages"]] == ["training", "testing"]
    assert body["training"]["code_digest"] == files_digest(accepted.world.folder / "made" / "code")[1]
    assert bom["metadata"]["component"]["modelCard"]["considerations"]["useCases"] == [
        "Offers to subscribers who may leave"
    ]


def test_the_evidence_names_the_dataset_by_the_owners_statement(accepted: Accepted) -> None:
    protection = json.loads(accepted.protection.read_bytes())

    dataset = read(accepted.signed.read("evidence.dsse.json"))["body"]["dataset"]

    body = read(protection)["body"]
    assert dataset["statement_digest"] == statement_digest(protection)
    assert dataset["plaintext_digest"] == body["plaintext_digest"]
    assert dataset["recipe_digest"] == body["recipe_digest"]


def test_a_model_file_may_not_bear_the_name_of_what_is_added(accepted: Accepted) -> None:
    (accepted.world.folder / "made" / "model" / "evidence.json").write_text("{}")

    ran = accepted.world.sign_model(accepted.protection)

    assert (ran.code, ran.result["status"]) == (3, "bad_input")
    assert ran.reason == "model/evidence.json: this name is kept for what the stage adds; rename the file"


# The gate


def test_a_model_that_passes_is_unpacked_with_every_criterion_that_it_met(accepted: Accepted) -> None:
    ran = gate(accepted)

    assert files_digest(ran.output / "model") == files_digest(accepted.signed.output / "model")
    criteria = {each["criterion"]: each["passed"] for each in ran.read("criteria.json")["criteria"]}
    assert criteria.keys() >= {"signature", "members", "digests", "workflow", "audience", "sequence", "expiry"}
    assert criteria.keys() >= {"bom", "format", "energy_budget", "contract", "recipe"}
    assert all(criteria.values())
    model = ran.read("criteria.json")["model"]
    assert model["artifact_digest"] == sha256_file(accepted.tar)
    assert ran.result["facts"] == {"hxmlops_model": model["artifact_digest"]}


def test_the_first_time_is_news_the_second_is_not(accepted: Accepted) -> None:
    assert accepted.gate.result["changed"] is True
    assert gate(accepted).result["changed"] is False


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def add(name: str) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("added")

    return alter


def flip_in_evidence(folder: Path) -> None:
    """One digit of a metric, with the envelope whole otherwise."""
    envelope = json.loads((folder / "evidence.json").read_bytes())
    payload = bytearray(envelope["payload"].encode())
    payload[200] = ord("A") if payload[200] != ord("A") else ord("B")
    (folder / "evidence.json").write_text(json.dumps(envelope | {"payload": payload.decode()}))


@pytest.mark.parametrize(
    ("alter", "criterion", "says"),
    [
        (lambda folder: flip_a_byte(folder / "model.onnx"), "members", "model.onnx is not what was signed"),
        (flip_in_evidence, "statement|signature", ""),
        (add("weights.bin"), "members", "weights.bin is not signed"),
        (add(".git/config"), "members", ".git/config is not signed"),
        (lambda folder: (folder / "bom.cdx.json").unlink(), "members", "bom.cdx.json is signed but missing"),
        (lambda folder: (folder / "model.sig").unlink(), "signature", "the model has no model.sig"),
    ],
    ids=["byte of model", "byte of evidence", "file added", "file added under .git", "no bill", "no signature"],
)
def test_what_was_altered_after_signing_is_refused(
    accepted: Accepted, alter: Callable[[Path], object], criterion: str, says: str
) -> None:
    ran = gate(accepted, altered(accepted, alter))

    assert ran.result["criterion"] in criterion.split("|")
    assert_refused(ran, ran.result["criterion"], says)


def test_a_signed_model_without_a_bill_is_refused(accepted: Accepted) -> None:
    def leave_out(folder: Path) -> None:
        (folder / "bom.cdx.json").unlink()
        sign_folder(folder, accepted.world.vendor.folder / "keys" / "signing.pem")

    assert_refused(gate(accepted, altered(accepted, leave_out)), "bom", "the model has no bom.cdx.json")


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "model/../../escaped"])
def test_a_tar_that_reaches_outside_is_refused(accepted: Accepted, name: str) -> None:
    tar = accepted.world.folder / "escape.tar"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))

    assert_refused(gate(accepted, tar), "archive", "a member is no plain file with a relative name")
    assert not list(accepted.world.folder.rglob("escaped"))


def test_an_unlisted_pickle_is_refused_and_a_listed_one_is_not(accepted: Accepted) -> None:
    data = pickle.dumps({"weights": [1.0]})
    (accepted.world.folder / "made" / "model" / "scaler.bin").write_bytes(data)
    signed = done(accepted.world.sign_model(accepted.protection))
    tar, evidence = signed.output / "model.tar", signed.output / "evidence.dsse.json"

    assert_refused(gate(accepted, tar, evidence), "format", "scaler.bin")

    allowed = {"allow": ["onnx"], "allow_pickles": [sha256_bytes(data)]}
    done(gate(accepted, tar, evidence, format_policy=allowed))


def test_a_model_that_is_not_float32_or_has_data_elsewhere_is_refused(accepted: Accepted) -> None:
    from onnx import TensorProto, helper

    file = accepted.world.folder / "made" / "model" / "model.onnx"
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "churn", ends[:1], ends[1:])
    file.write_bytes(helper.make_model(graph).SerializeToString())
    double = done(accepted.world.sign_model(accepted.protection)).output
    assert_refused(gate(accepted, double / "model.tar", double / "evidence.dsse.json"), "format", "float32")

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("x", "probabilities")]
    node = helper.make_node("Mul", ["x", "w"], ["probabilities"])
    file.write_bytes(
        helper.make_model(helper.make_graph([node], "m", ends[:1], ends[1:], [weight])).SerializeToString()
    )
    external = done(accepted.world.sign_model(accepted.protection, valid_days=91)).output
    assert_refused(gate(accepted, external / "model.tar", external / "evidence.dsse.json"), "format", "external data")


def test_another_vendors_key_is_refused(accepted: Accepted) -> None:
    folder = accepted.world.vendor.folder / "keys"
    shutil.rmtree(folder)
    keys.make_keys(folder)
    signed = done(accepted.world.sign_model(accepted.protection)).output

    ran = gate(accepted, signed / "model.tar", signed / "evidence.dsse.json")

    assert_refused(ran, "signature", "of software-vendor is not pinned here")


def test_a_revoked_key_is_refused(accepted: Accepted) -> None:
    pin = accepted.world.staging.folder / "trust" / "software-vendor.json"
    pinned = json.loads(pin.read_text())
    pinned["keys"][0]["revoked_at"] = "2026-01-01T00:00:00Z"
    pin.write_text(json.dumps(pinned))

    assert_refused(gate(accepted), "revocation", "was revoked at 2026-01-01T00:00:00Z")


def test_evidence_of_another_workflow_is_refused(accepted: Accepted) -> None:
    at = replace(accepted, world=accepted.world.under(id="fraud"))

    assert_refused(gate(at), "workflow", f"is of workflow {accepted.world.workflow['id']}, not fraud")


def test_evidence_for_another_audience_is_refused(accepted: Accepted) -> None:
    signed = done(accepted.world.under(acceptor="rival-staging").sign_model(accepted.protection)).output

    ran = gate(accepted, signed / "model.tar", signed / "evidence.dsse.json")

    assert_refused(ran, "audience", "is meant for rival-staging, not mno-staging")


def test_evidence_under_another_contract_is_refused(accepted: Accepted) -> None:
    at = replace(accepted, world=accepted.world.under(contract={"recipe": {"k": 6}}))

    assert_refused(gate(at), "contract", "is of another contract")


def test_expired_evidence_is_refused(accepted: Accepted) -> None:
    signed = done(accepted.world.sign_model(accepted.protection, valid_days=0)).output

    assert_refused(gate(accepted, signed / "model.tar", signed / "evidence.dsse.json"), "expiry", "expired at")


def test_a_replayed_model_is_refused(accepted: Accepted) -> None:
    newer = done(accepted.world.sign_model(accepted.protection, valid_days=60)).output
    done(gate(accepted, newer / "model.tar", newer / "evidence.dsse.json"))

    assert_refused(gate(accepted), "sequence", "is older than 2, the last accepted")


def test_a_refused_model_does_not_use_up_its_sequence(accepted: Accepted) -> None:
    newer = done(accepted.world.sign_model(accepted.protection, valid_days=60)).output
    assert gate(accepted, newer / "model.tar", newer / "evidence.dsse.json", energy_budget_j=1).code == 2

    done(gate(accepted))


@pytest.mark.parametrize(
    ("record", "budget_j", "says"),
    [
        (energy_record("training", cpu_s=2.0), 30, "up to 40 J over 2 attempts, above the budget of 30 J"),
        (energy_record("training", cpu_s=1e4, declared_j_upper=1.0), 20000, "above the budget of 20000 J"),
        (energy_record("training", cpu_s=0.1, declared_j_upper=9e5), 20000, "above the budget of 20000 J"),
    ],
    ids=["small budget", "declared less than its counters say", "declared more"],
)
def test_energy_over_budget_is_refused(
    accepted: Accepted, record: dict[str, object], budget_j: float, says: str
) -> None:
    signed = done(accepted.world.sign_model(accepted.protection, records=[record, energy_record("testing")])).output

    ran = gate(accepted, signed / "model.tar", signed / "evidence.dsse.json", energy_budget_j=budget_j)

    assert_refused(ran, "energy_budget", says)


def test_a_catalogue_with_other_evidence_than_the_tar_is_refused(accepted: Accepted) -> None:
    other = done(accepted.world.sign_model(accepted.protection, valid_days=60)).output

    ran = gate(accepted, accepted.tar, other / "evidence.dsse.json")

    assert_refused(ran, "evidence", "the catalogue's evidence is not the one in the model's tar")


def test_a_model_of_another_recipe_than_the_hidden_rows_is_refused(accepted: Accepted) -> None:
    recipe = accepted.world.folder / "released" / "recipe.json"
    recipe.write_text(recipe.read_text().replace("50", "100"))
    newer = done(accepted.world.encrypt()).output

    ran = accepted.world.gate_model(accepted.tar, accepted.evidence, newer / "hidden" / "protection.dsse.json")

    assert_refused(ran, "recipe", "software-vendor must build on the newest release")
