"""The model's bill of materials: CycloneDX 1.6 with a model card, of which a receiver checks what it relies
on.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hxmlops_evidence.digests import Json, digest_of
from hxmlops_evidence.errors import BadInput, Refused

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

BOM = "bom.cdx.json"
_VERSIONS = ("1.5", "1.6", "1.7")
_MODEL = "machine-learning-model"


def make_bom(
    *,
    name: str,
    version: str,
    files: Mapping[str, str],
    parameters: Mapping[str, Json],
    metrics: Mapping[str, Mapping[str, float]],
    dataset: Mapping[str, str],
    intended_use: str,
    libraries: Mapping[str, str],
    timestamp: datetime,
) -> bytes:
    """The bill of materials as JSON, equal for equal arguments.

    `files` {path: digest} of the model's files; `parameters` it was trained with; `metrics` {name: {value,
    lower, upper}} with 95 % bounds; `dataset` {what: digest} it was trained on; `libraries` {PyPI name:
    version}. BadInput when CycloneDX's own schema refuses the outcome. Imports cyclonedx (0.2 s).
    """
    document = json.loads(_without_card(name, version, files, parameters, libraries, timestamp))
    document["metadata"]["component"]["modelCard"] = {
        "bom-ref": "model-card",
        "modelParameters": {
            "approach": {"type": "supervised"},
            "datasets": [{"type": "dataset", "name": f"{name} training", "contents": _contents(dataset)}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [_performance(metric, metrics[metric]) for metric in sorted(metrics)]
        },
        "considerations": {"useCases": [intended_use]},
    }
    del document["serialNumber"]
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, digest_of(document)).urn
    data = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode()
    _validate(data)
    return data


def check_bom(data: bytes, files: Mapping[str, str]) -> None:
    """Refused("bom") unless it is a CycloneDX bill of one model, with its card, of exactly these files.

    Only what a receiver relies on is checked, not CycloneDX's whole schema, which takes a fifth of a second.
    """
    try:
        document = json.loads(data)
        component = document["metadata"]["component"]
        form = document["bomFormat"], document["specVersion"] in _VERSIONS, component["type"]
        listed = {part["name"]: part["hashes"] for part in component["components"] if part["type"] == "file"}
        hashes = {path: [f"sha256:{h['content']}" for h in listed[path] if h["alg"] == "SHA-256"] for path in listed}
        card = component.get("modelCard")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("bom", f"{BOM} is no CycloneDX bill with a model and its files; make it again") from None
    if form != ("CycloneDX", True, _MODEL):
        raise Refused("bom", f"{BOM} is no CycloneDX {', '.join(_VERSIONS)} bill of a {_MODEL}; make it again")
    if not isinstance(card, dict) or not card.get("modelParameters"):
        raise Refused("bom", f"{BOM} has no model card; make it again with one")
    if hashes != {path: [digest] for path, digest in files.items()}:
        raise Refused("bom", f"{BOM} lists other files, or other hashes, than the model has; make it again")


def _without_card(
    name: str,
    version: str,
    files: Mapping[str, str],
    parameters: Mapping[str, Json],
    libraries: Mapping[str, str],
    timestamp: datetime,
) -> str:
    """All but the model card, for which cyclonedx-python-lib has no class."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def file(path: str) -> Component:
        sha256 = HashType(alg=HashAlgorithm.SHA_256, content=files[path].removeprefix("sha256:"))
        return Component(type=ComponentType.FILE, name=path, bom_ref=f"file:{path}", hashes=[sha256])

    def library(package: str) -> Component:
        purl = PackageURL("pypi", name=package, version=libraries[package])
        return Component(name=package, version=libraries[package], purl=purl, bom_ref=str(purl))

    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=version,
        bom_ref="model",
        components=map(file, sorted(files)),
        properties=[
            Property(name=f"hxmlops:parameter:{key}", value=_text(parameters[key])) for key in sorted(parameters)
        ],
    )
    needed = [library(package) for package in sorted(libraries)]
    bom = Bom(components=needed, metadata=BomMetaData(component=model, timestamp=timestamp))
    bom.register_dependency(model, needed)
    return JsonV1Dot6(bom).output_as_string()


def _contents(digests: Mapping[str, str]) -> dict[str, Any]:
    return {"properties": [{"name": what, "value": digests[what]} for what in sorted(digests)]}


def _performance(name: str, metric: Mapping[str, float]) -> dict[str, Any]:
    bounds = {"lowerBound": _text(metric["lower"]), "upperBound": _text(metric["upper"])}
    return {"type": name, "value": _text(metric["value"]), "confidenceInterval": bounds}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _validate(data: bytes) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()):
        raise BadInput(f"{BOM}: CycloneDX's schema refuses it: {str(problem).splitlines()[0]}")
