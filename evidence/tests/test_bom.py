"""The bill of materials."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from hxmlops_evidence.bom import check_bom, make_bom
from hxmlops_evidence.digests import sha256_bytes
from hxmlops_evidence.errors import BadInput, Refused

FILES = {"model.onnx": sha256_bytes(b"model"), "labels/names.txt": sha256_bytes(b"names")}


@pytest.fixture(scope="session")
def make() -> Callable[..., bytes]:
    def with_defaults(**changed: Any) -> bytes:
        arguments: dict[str, Any] = {
            "name": "churn",
            "version": "1.0.1",
            "files": FILES,
            "parameters": {"max_depth": 3, "loss": "log_loss", "warm_start": False},
            "metrics": {"roc_auc": {"value": 0.92, "lower": 0.9, "upper": 0.94}},
            "dataset": {"plaintext_digest": sha256_bytes(b"rows")},
            "intended_use": "Retention offers",
            "libraries": {"scikit-learn": "1.9.1", "onnx": "1.23.0"},
            "timestamp": datetime(2026, 11, 23, tzinfo=UTC),
        }
        return make_bom(**{**arguments, **changed})

    return with_defaults


@pytest.fixture
def bom(make: Callable[..., bytes]) -> Any:
    return json.loads(make())


def test_it_is_a_cyclonedx_bill_of_one_model(bom: Any) -> None:
    model = bom["metadata"]["component"]
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "churn", "1.0.1")


def test_it_lists_files_libraries_and_parameters(bom: Any) -> None:
    model = bom["metadata"]["component"]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes == {name: digest.removeprefix("sha256:") for name, digest in FILES.items()}
    assert [library["purl"] for library in bom["components"]] == ["pkg:pypi/onnx@1.23.0", "pkg:pypi/scikit-learn@1.9.1"]
    parameters = {entry["name"]: entry["value"] for entry in model["properties"]}
    assert parameters == {
        "hxmlops:parameter:loss": "log_loss",
        "hxmlops:parameter:max_depth": "3",
        "hxmlops:parameter:warm_start": "false",
    }


def test_it_has_a_model_card(bom: Any) -> None:
    card = bom["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "roc_auc", "value": "0.92", "confidenceInterval": {"lowerBound": "0.9", "upperBound": "0.94"}}
    ]
    assert card["considerations"] == {"useCases": ["Retention offers"]}
    [dataset] = card["modelParameters"]["datasets"]
    assert dataset["contents"]["properties"] == [{"name": "plaintext_digest", "value": sha256_bytes(b"rows")}]


def test_equal_models_have_equal_bills(make: Callable[..., bytes]) -> None:
    assert make() == make(files=dict(reversed(FILES.items())))
    assert json.loads(make())["serialNumber"] != json.loads(make(version="1.0.2"))["serialNumber"]


def test_what_cyclonedx_refuses_is_not_made(make: Callable[..., bytes]) -> None:
    with pytest.raises(BadInput, match=r"^bom\.cdx\.json: CycloneDX's schema refuses it"):
        make(intended_use=7)


def test_the_bill_of_these_files_passes(make: Callable[..., bytes]) -> None:
    check_bom(make(), FILES)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model.onnx": FILES["model.onnx"]},
        FILES | {"more": sha256_bytes(b"")},
        FILES | {"model.onnx": sha256_bytes(b"other")},
    ],
)
def test_the_bill_of_other_files_is_refused(make: Callable[..., bytes], files: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^bom: bom\.cdx\.json lists other files"):
        check_bom(make(), files)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda bom: bom.update(bomFormat="SPDX"), "is no CycloneDX"),
        (lambda bom: bom.update(specVersion="1.4"), "is no CycloneDX"),
        (lambda bom: bom["metadata"]["component"].update(type="library"), "of a machine-learning-model"),
        (lambda bom: bom["metadata"]["component"].pop("modelCard"), "has no model card"),
        (lambda bom: bom["metadata"]["component"].update(modelCard={}), "has no model card"),
        (lambda bom: bom["metadata"]["component"].pop("components"), "with a model and its files"),
        (lambda bom: bom["metadata"]["component"].update(components=[1]), "with a model and its files"),
        (lambda bom: bom["metadata"]["component"]["components"][0].pop("hashes"), "with a model and its files"),
        (lambda bom: bom.pop("metadata"), "with a model and its files"),
    ],
)
def test_a_bill_without_what_a_receiver_needs_is_refused(bom: Any, change: Callable[[Any], Any], says: str) -> None:
    change(bom)
    with pytest.raises(Refused, match=says):
        check_bom(json.dumps(bom).encode(), FILES)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_bill_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match=r"^bom: "):
        check_bom(data, FILES)
