"""Examples for the OpenAPI documents: of JSON answers by their schema, of bodies by their operation."""

from typing import Any

from hxmlops_sharing.problems import PROBLEM_TYPE

SHA256 = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"
OTHER_SHA256 = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
TIME = "2026-11-25T19:36:00.123456Z"

MODEL_METADATA = {
    "name": "churn",
    "version": "1.2.0",
    "status": "staging",
    "library": "scikit-learn",
    "libraryVersion": "1.7.2",
    "domain": "telecom",
    "tag": "churn",
    "parameters": {"max_depth": 3},
    "characteristics": {"auc": 0.92},
}
DATASET_METADATA = {
    "name": "customers",
    "version": "2026.11",
    "dataType": "production",
    "tag": "churn",
    "parameters": {"k": 5},
}
MODEL = {"modelIdentifier": 7, **MODEL_METADATA, "sha256": SHA256, "size": 181_248}
DATASET = {
    "datasetIdentifier": 4,
    **DATASET_METADATA,
    "sha256": SHA256,
    "datasetSha256": SHA256,
    "dataModelSha256": OTHER_SHA256,
}
ALIAS = {
    "alias": "champion",
    "name": "churn",
    "identifier": 7,
    "revision": 3,
    "setAt": TIME,
    "setBy": "mno-production",
}
AUDIT_LINE = {
    "id": 2,
    "at": TIME,
    "client": "vendor",
    "action": "upload",
    "kind": "model",
    "identifier": 7,
    "name": "churn",
    "version": "1.2.0",
    "sha256": SHA256,
    "detail": {},
    "request_id": "42be6c1004a7b47f",
    "refers_to": None,
    "previous": OTHER_SHA256,
    "digest": SHA256,
}
PROBLEM = {
    "type": "urn:hxmlops:problem:not-found",
    "title": "Not Found",
    "status": 404,
    "detail": "there is no model 7",
    "requestId": "42be6c1004a7b47f",
}

OF_SCHEMAS: dict[str, Any] = {
    "ModelRecord": MODEL,
    "DatasetRecord": DATASET,
    "Models": {"models": [MODEL]},
    "Datasets": {"datasets": [DATASET]},
    "AliasRecord": ALIAS,
    "Aliases": {"aliases": [ALIAS]},
    "AuditLines": {"lines": [AUDIT_LINE]},
    "Verified": {"verified": {"format": "onnx", "signer": SHA256, "bom": True}},
    "Health": {"status": "UP"},
    "Ready": {"status": "READY"},
    "ProblemDetails": PROBLEM,
}
FILE = "0f3a9c0b51d84e1a9a3c7f2b6d5e4c10"
OF_BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/v1/model"): MODEL_METADATA | {"file": FILE},
    ("post", "/api/v1/dataset"): DATASET_METADATA
    | {"datasetFile": FILE, "dataModelFile": f"/api/v1/files/{FILE[::-1]}"},
    ("patch", "/api/v1/model/{identifier}"): {"status": "production"},
    ("post", "/api/v1/model/{identifier}/{member}"): {"recall": 0.81},
    ("put", "/api/v1/model/{identifier}/{member}"): {"auc": 0.92, "recall": 0.81},
    ("put", "/api/v1/aliases/{alias}"): {"identifier": 7},
}
RECEIPT = {
    "payloadType": "application/vnd.hxmlops.delivery+json",
    "payload": "eyJ0eXBlIjoiZGVsaXZlcnkifQ==",
    "signatures": [{"keyid": SHA256, "sig": "MEUCIQC9mG0="}],
}
OF_ANSWERS: dict[tuple[str, str], Any] = {("get", "/api/v1/receipts/{number}"): RECEIPT}


def add_examples(document: dict[str, Any]) -> None:
    """Give every JSON body and answer of a document an example."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = operation.get("requestBody", {}).get("content", {})
            if (method, path) in OF_BODIES and "application/json" in bodies:
                bodies["application/json"]["example"] = OF_BODIES[method, path]
            for answer in operation["responses"].values():
                _add(answer.get("content", {}), OF_ANSWERS.get((method, path)))


def _add(contents: dict[str, Any], example: Any) -> None:
    for media_type, content in contents.items():
        if media_type in ("application/json", PROBLEM_TYPE):
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            found = OF_SCHEMAS.get(name, example)
            if found is not None:
                content["example"] = found
