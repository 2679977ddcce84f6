"""The gate of a receiver's staging domain on a vendor's model."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import statements
from hxmlops_evidence.artifact import pack, unpack
from hxmlops_evidence.digests import sha256_bytes
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.gates import gate_model, line
from hxmlops_evidence.sequences import record_sequence

type SignedModel = Callable[..., tuple[Path, statements.Envelope]]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
METRICS = ["roc_auc", "average_precision", "brier"]


def energy_j_upper(record: Any) -> float:
    """Coefficients of a receiver: 7 J per CPU second."""
    return float(record["cpu_s"]) * 7


@pytest.fixture
def gate(world: Any, tmp_path: Path) -> Callable[..., Any]:
    """Call the gate as a staging domain does; arguments override its own."""

    def call(tar: Path, evidence: statements.Envelope | None = None, **changed: Any) -> Any:
        arguments: dict[str, Any] = {
            "tar": tar,
            "folder": tmp_path / "gated",
            "evidence": evidence,
            "trust": world.trust,
            "domain": tmp_path / "domain",
            "vendor": "software-vendor",
            "workflow_id": "churn",
            "audience": "mno-staging",
            "contract_digest": sha256_bytes(b"contract"),
            "metrics": METRICS,
            "format_policy": {"allow": ["onnx"], "allow_pickles": []},
            "energy_budget_j": 1000,
            "energy_j_upper": energy_j_upper,
            "now": NOW,
        }
        return gate_model(**{**arguments, **changed})

    return call


@pytest.fixture
def refused(gate: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """What the gate says when it refuses; nothing of the model must be left then."""

    def call(tar: Path, evidence: statements.Envelope | None = None, **changed: Any) -> str:
        with pytest.raises(Refused) as caught:
            gate(tar, evidence, **changed)
        assert not (tmp_path / "gated").exists()
        assert not (tmp_path / "domain").exists() or (tmp_path / "domain" / "sequences.json").exists()
        return str(caught.value)

    return call


def flip(path: Path, content: bytes) -> None:
    """Change one byte in the middle of this content, wherever in the file it stands."""
    data = path.read_bytes()
    at = data.index(content) + len(content) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_vendors_model_passes_every_criterion(
    gate: Callable[..., Any], signed_model: SignedModel, tmp_path: Path
) -> None:
    criteria = gate(*signed_model())
    assert [each["criterion"] for each in criteria] == [
        "archive",
        "statement",
        "signature",
        "revocation",
        "workflow",
        "audience",
        "contract",
        "expiry",
        "evidence",
        "sequence",
        "members",
        "digests",
        "bom",
        "format",
        "metrics",
        "energy_budget",
    ]
    assert all(each["passed"] for each in criteria)
    assert {path.name for path in (tmp_path / "gated").iterdir()} == {
        "model.onnx",
        "evidence.json",
        "bom.cdx.json",
        "model.sig",
    }


def test_a_model_passes_without_a_catalogue(gate: Callable[..., Any], signed_model: SignedModel) -> None:
    assert gate(signed_model()[0])


def test_more_files_than_one_may_make_a_model(
    gate: Callable[..., Any], signed_model: SignedModel, onnx_model: Callable[..., Any]
) -> None:
    onnx = onnx_model().SerializeToString()
    assert gate(*signed_model({"model.onnx": onnx, "labels/names.txt": b"no\nyes\n", ".gitignore": b"*"}))


def test_a_flipped_byte_in_the_model_is_refused(
    refused: Callable[..., str], signed_model: SignedModel, onnx_model: Callable[..., Any]
) -> None:
    tar, evidence = signed_model()
    flip(tar, onnx_model().SerializeToString())
    assert refused(tar, evidence).startswith("members: model.onnx is not what was signed")


def test_a_flipped_byte_in_the_evidence_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model()
    flip(tar, evidence["signatures"][0]["sig"].encode())
    assert refused(tar, evidence).split(":")[0] in ("signature", "statement")


def test_a_flipped_byte_in_the_signature_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model()
    flip(tar, b"dsseEnvelope")
    assert refused(tar, evidence).startswith("signature: ")


@pytest.mark.parametrize("name", ["added.txt", ".git/hooks/post-checkout", ".gitattributes"])
def test_a_file_added_to_a_signed_model_is_refused(
    refused: Callable[..., str], signed_model: SignedModel, tmp_path: Path, name: str
) -> None:
    tar, evidence = signed_model()
    unpack(tar, tmp_path / "changed")
    (tmp_path / "changed" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "changed" / name).write_text("more")
    pack(tmp_path / "changed", tar)
    assert refused(tar, evidence).startswith(f"members: {name} is not signed")


def test_a_signed_file_that_the_evidence_does_not_name_is_refused(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    tar, evidence = signed_model(before_signing=lambda folder: (folder / "added.txt").write_text("more"))
    assert refused(tar, evidence).startswith("digests: the model's files are not those of its evidence")


def test_evidence_of_other_files_under_a_true_subject_is_refused(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    tar, _ = signed_model(change=lambda body: body["files"].update({"other.onnx": sha256_bytes(b"other")}))
    assert refused(tar).startswith("digests: ")


def test_a_subject_that_is_not_that_of_the_files_is_refused(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    tar, _ = signed_model(statement={"subject_digest": sha256_bytes(b"other")})
    assert refused(tar).startswith("digests: ")


def test_a_tar_that_leads_out_of_its_folder_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model()
    tar.write_bytes(tar.read_bytes().replace(b"bom.cdx.json", b"../cdx.json/"))
    assert refused(tar, evidence).startswith("archive: ")


def test_another_vendors_key_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(by="stranger")
    assert "of software-vendor is not pinned here; import its card" in refused(tar, evidence)


def test_a_pinned_key_of_somebody_else_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(by="mno-production")
    assert "of software-vendor is not pinned here" in refused(tar, evidence)


def test_a_model_signed_by_another_key_than_its_evidence_is_refused(
    world: Any, refused: Callable[..., str], signed_model: SignedModel
) -> None:
    from hxmlops_evidence.signature import sign_folder

    tar, evidence = signed_model(then=lambda folder: sign_folder(folder, world.signing_key("stranger")))
    assert refused(tar, evidence).startswith("signature: model.sig is not by the vendor's key")


def test_an_unsigned_model_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(then=lambda folder: (folder / "model.sig").unlink())
    assert refused(tar, evidence).startswith("signature: the model has no model.sig")


def test_a_model_without_evidence_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(then=lambda folder: (folder / "evidence.json").unlink())
    assert refused(tar, evidence).startswith("evidence: the model has no evidence.json")


def test_evidence_that_is_not_json_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(then=lambda folder: (folder / "evidence.json").write_text("{"))
    assert refused(tar, evidence).startswith("evidence: evidence.json is not JSON")


@pytest.mark.parametrize("name", ["evidence.json", "model.sig"])
def test_a_document_too_large_to_be_one_is_refused(
    refused: Callable[..., str], signed_model: SignedModel, name: str
) -> None:
    def grow(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate((16 << 20) + 1)

    assert refused(*signed_model(then=grow)).startswith(f"archive: {name} is larger than 16 MiB")


def test_a_catalogue_with_other_evidence_is_refused(
    world: Any, refused: Callable[..., str], signed_model: SignedModel
) -> None:
    tar, evidence = signed_model()
    other = statements.read(evidence) | {"run_id": "run-2"}
    assert refused(tar, world.sign(other, "software-vendor")).startswith("evidence: the catalogue's evidence is not")


def test_evidence_of_another_workflow_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    assert refused(*signed_model(statement={"workflow_id": "roaming"})).startswith("workflow: ")


def test_evidence_for_another_audience_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    assert refused(*signed_model(statement={"audience": "mno-production"})).startswith("audience: ")


def test_evidence_under_another_contract_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    other = sha256_bytes(b"another contract")
    assert refused(*signed_model(statement={"contract_digest": other})).startswith("contract: ")


def test_expired_evidence_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    assert refused(*signed_model(), now=NOW + timedelta(days=60)).startswith(
        "expiry: evidence by software-vendor expired"
    )


def test_replayed_evidence_is_refused(
    gate: Callable[..., Any], refused: Callable[..., str], signed_model: SignedModel, tmp_path: Path
) -> None:
    accepted = {"issuer": "software-vendor", "line": line("evidence", "churn"), "statement_digest": sha256_bytes(b"")}
    record_sequence(tmp_path / "domain", sequence=2, **accepted)
    assert refused(*signed_model()).startswith("sequence: evidence/churn 1 of software-vendor is older than 2")
    assert refused(*signed_model(statement={"sequence": 2})).startswith("sequence: evidence/churn 2 of software-vendor")
    assert gate(*signed_model(statement={"sequence": 3}))


def test_the_gate_itself_records_nothing(gate: Callable[..., Any], signed_model: SignedModel, tmp_path: Path) -> None:
    gate(*signed_model())
    assert not (tmp_path / "domain").exists()


def test_a_revoked_vendor_is_refused(own_world: Any, refused: Callable[..., str], signed_model: SignedModel) -> None:
    pins = own_world.folder / "trust" / "software-vendor.json"
    pins.write_text(pins.read_text().replace('"revoked_at": null', '"revoked_at": "2026-11-23T10:00:00Z"'))
    assert refused(*signed_model(), trust=own_world.trust).startswith("revocation: ")


def test_a_missing_bill_of_materials_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    assert refused(*signed_model(bom=False)).startswith("bom: the model has no bom.cdx.json")


def test_another_bill_than_the_evidences_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(change=lambda body: body.update(bom_digest=sha256_bytes(b"other")))
    assert refused(tar, evidence).startswith("bom: bom.cdx.json is not the one of the evidence")


def test_a_bill_that_says_nothing_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    tar, evidence = signed_model(
        change=lambda body: body.update(bom_digest=sha256_bytes(b"{}")),
        before_signing=lambda folder: (folder / "bom.cdx.json").write_text("{}"),
    )
    assert refused(tar, evidence).startswith("bom: bom.cdx.json is no CycloneDX bill")


def test_an_unlisted_pickle_is_refused(
    gate: Callable[..., Any], refused: Callable[..., str], signed_model: SignedModel, onnx_model: Callable[..., Any]
) -> None:
    import pickle

    scaler = pickle.dumps({"mean": 1.5})
    tar, evidence = signed_model({"model.onnx": onnx_model().SerializeToString(), "scaler": scaler})
    assert refused(tar, evidence).startswith("format: scaler: it is a pickle of protocol")
    assert gate(tar, evidence, format_policy={"allow": ["onnx"], "allow_pickles": [sha256_bytes(scaler)]})


def test_a_format_that_the_policy_does_not_allow_is_refused(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    tar, evidence = signed_model()
    policy = {"allow": ["safetensors"], "allow_pickles": []}
    assert refused(tar, evidence, format_policy=policy).startswith("format: format onnx is not allowed here")


def test_a_model_with_external_data_is_refused(
    refused: Callable[..., str], signed_model: SignedModel, onnx_model: Callable[..., Any]
) -> None:
    model = {"model.onnx": onnx_model(external=True).SerializeToString()}
    assert refused(*signed_model(model)).startswith("format: model.onnx: has weights in other files")


@pytest.mark.parametrize("metrics", [["roc_auc"], [*METRICS, "log_loss"], []])
def test_other_metrics_than_the_contracts_are_refused(
    refused: Callable[..., str], signed_model: SignedModel, metrics: list[str]
) -> None:
    assert refused(*signed_model(), metrics=metrics).startswith("metrics: ")


def test_energy_is_the_sum_over_all_attempts_failed_ones_too(
    gate: Callable[..., Any], signed_model: SignedModel, example: Callable[[str], Any]
) -> None:
    stages = example("evidence")["body"]["stages"]
    assert [record["status"] for record in stages] == ["failed", "done", "done"]
    total_j = sum(record["cpu_s"] for record in stages) * 100
    by_100 = {"energy_j_upper": lambda record: record["cpu_s"] * 100}
    assert gate(*signed_model(), energy_budget_j=total_j + 1, **by_100)


def test_energy_over_budget_is_refused(refused: Callable[..., str], signed_model: SignedModel) -> None:
    says = refused(*signed_model(), energy_budget_j=10, energy_j_upper=lambda record: record["cpu_s"] * 100)
    assert says == "energy_budget: up to 950 J over 3 attempts, above the budget of 10 J"


def test_joules_that_the_vendor_embellished_are_computed_again(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    def embellish(body: dict[str, Any]) -> None:
        for record in body["stages"]:
            record |= {"energy_j": 0, "energy_j_lower": 0, "energy_j_upper": 0}

    assert refused(*signed_model(change=embellish), energy_budget_j=10).startswith("energy_budget: up to 66 J")


def test_joules_above_our_own_figure_count_as_declared(refused: Callable[..., str], signed_model: SignedModel) -> None:
    says = refused(*signed_model(), energy_budget_j=10, energy_j_upper=lambda _: 0.0)
    assert says.startswith("energy_budget: up to ")


def test_a_figure_that_is_no_number_is_not_within_budget(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    assert refused(*signed_model(), energy_j_upper=lambda _: float("nan")).startswith("energy_budget: ")


def test_evidence_without_the_energy_of_a_training_is_refused(
    refused: Callable[..., str], signed_model: SignedModel
) -> None:
    def leave_out(body: dict[str, Any]) -> None:
        body["stages"] = [record for record in body["stages"] if record["stage"] != "training"]

    assert refused(*signed_model(change=leave_out)).startswith(
        "energy_budget: the evidence has no energy of a training"
    )


def test_criteria_can_be_written_into_an_acceptance(gate: Callable[..., Any], signed_model: SignedModel) -> None:
    assert json.loads(json.dumps(gate(*signed_model())))[0] == {"criterion": "archive", "passed": True}
