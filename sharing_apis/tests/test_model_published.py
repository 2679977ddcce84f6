"""What the published OpenAPI file of the Model Sharing API adds to what is served."""

from typing import Any

import httpx2 as httpx
import pytest

ALL_BACKENDS = True

QUERY = {
    "name": "churn",
    "version": "1.0.0",
    "status": "development",
    "library": "onnx",
    "libraryVersion": "1.31",
    "domain": "software-vendor",
    "class": "classification",
    "tag": "churn",
}
OCTETS = {"Content-Type": "application/octet-stream"}


def upload(api: httpx.Client) -> httpx.Response:
    return api.post("/api/v1/model", params=QUERY, content=b"bytes", headers=OCTETS)


def audit(api: httpx.Client) -> list[tuple[Any, ...]]:
    """What is on record of changes: action, client, identifier, detail."""
    lines = api.get("/api/v1/audit").json()["lines"]
    return [
        (line["action"], line["client"], line["identifier"], line["detail"])
        for line in lines
        if line["action"] in ("upload", "change", "delete")
    ]


def test_upload_with_metadata_in_the_query(models: httpx.Client) -> None:
    answer = upload(models)
    assert answer.status_code == 200
    record = answer.json()
    assert {name: record[name] for name in QUERY} == QUERY
    assert (record["modelIdentifier"], record["parameters"], record["characteristics"]) == (1, {}, {})
    assert models.get("/api/v1/model/1").content == b"bytes"


def test_a_body_without_a_type_counts_as_octets(models: httpx.Client) -> None:
    assert models.post("/api/v1/model/", params=QUERY, content=iter([b"by", b"tes"])).json()["size"] == 5


def test_filter_class(models: httpx.Client) -> None:
    upload(models)
    models.post("/api/v1/model", params=QUERY | {"version": "2", "class": "regression"}, content=b"x", headers=OCTETS)
    answer = models.get("/api/v1/model/catalog", params={"class": "regression", "status": "training"})
    assert [record["modelIdentifier"] for record in answer.json()["models"]] == [2]


@pytest.mark.parametrize("member", ["parameters", "characteristics"])
def test_post_adds_and_put_replaces(models: httpx.Client, member: str) -> None:
    upload(models)
    path = f"/api/v1/model/1/{member}"
    assert models.post(path, json={"a": 1, "b": 1}).json()[member] == {"a": 1, "b": 1}
    assert models.post(f"{path}/", json={"b": True, "c": {}}).json()[member] == {"a": 1, "b": True, "c": {}}
    assert models.put(path, json={"d": None}).json()[member] == {"d": None}
    assert models.get("/api/v1/model/1/data").json()[member] == {"d": None}
    changes = [detail[member] for action, _, _, detail in audit(models) if action == "change"]
    assert [change["to"]["keys"] for change in changes] == [["a", "b"], ["a", "b", "c"], ["d"]]


def test_patch_changes_five_members_and_audits_each_change(models: httpx.Client) -> None:
    upload(models)
    answer = models.patch("/api/v1/model/1", json={"status": "staging", "tag": "new", "domain": "mno-staging"})
    assert answer.status_code == 200
    assert [answer.json()[name] for name in ("status", "tag", "domain")] == ["staging", "new", "mno-staging"]
    assert models.patch("/api/v1/model/1", json=answer.json()).json() == answer.json()  # nothing changes: no audit
    assert audit(models) == [
        ("upload", "anonymous", 1, {}),
        (
            "change",
            "anonymous",
            1,
            {
                "status": {"from": "development", "to": "staging"},
                "domain": {"from": "software-vendor", "to": "mno-staging"},
                "tag": {"from": "churn", "to": "new"},
            },
        ),
    ]


def test_a_deletion_is_audited_too(models: httpx.Client) -> None:
    upload(models)
    models.delete("/api/v1/model/1?version=2")
    models.delete("/api/v1/model/1?version=1.0.0")
    assert audit(models) == [("upload", "anonymous", 1, {}), ("delete", "anonymous", 1, {})]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"version": "2.0.0"}, 409, "version of a version cannot change: publish a new version"),
        ({"sha256": "sha256:0", "size": 1}, 409, "sha256, size of a version cannot change: publish a new version"),
        ({"library": "torch", "status": "staging"}, 409, "library of a version cannot change: publish a new version"),
        ({"colour": "red"}, 422, "a model has no member 'colour'"),
        (
            {"status": "done"},
            422,
            "status: Input should be 'production', 'staging', 'training' or 'development'",
        ),
        ({"parameters": []}, 422, "parameters: Input should be a valid dictionary"),
    ],
)
def test_patch_refuses_the_rest(models: httpx.Client, body: dict[str, Any], status: int, detail: str) -> None:
    before = upload(models).json()
    answer = models.patch("/api/v1/model/1", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert models.get("/api/v1/model/1/data").json() == before


def test_put_of_the_same_bytes_sets_status_and_tag(models: httpx.Client) -> None:
    upload(models)
    answer = models.put("/api/v1/model/1?version=1.0.0&status=production&tag=x", content=b"bytes", headers=OCTETS)
    assert [answer.json()[name] for name in ("status", "tag")] == ["production", "x"]


def test_put_of_other_bytes_is_409(models: httpx.Client) -> None:
    before = upload(models).json()
    answer = models.put("/api/v1/model/1?status=production", content=b"other", headers=OCTETS)
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        "churn 1.0.0 has other bytes, which others may have fetched; versions are immutable: publish a new version"
    )
    assert models.get("/api/v1/model/1/data").json() == before
    assert models.get("/api/v1/model/1").content == b"bytes"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"[1]", "application/json", 422),
        (b'{"a": Infinity}', "application/json", 422),
        (b"\xff", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b'{"a": "' + b"x" * (8 << 20) + b'"}', "application/json", 413),
    ],
)
def test_wrong_json_is_refused(models: httpx.Client, body: bytes, content_type: str, status: int) -> None:
    upload(models)
    answer = models.put("/api/v1/model/1/parameters", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_other_bodies_than_form_or_octets_are_415(models: httpx.Client) -> None:
    answer = models.post("/api/v1/model", content=b"<xml/>", headers={"Content-Type": "text/xml"})
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith("the body should be multipart/form-data or application/octet-stream or ")
