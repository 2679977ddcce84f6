"""The Model Sharing API as its original clients call it: with and without a trailing slash, integer ids."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx2 as httpx
import pytest

ALL_BACKENDS = True

MODEL = {
    "name": "churn",
    "version": "1.0.0",
    "status": "production",
    "library": "onnx",
    "libraryVersion": "1.31",
    "domain": "software-vendor",
    "tag": "churn",
    "parameters": '{"seed": 7}',
    "characteristics": '{"auc": 0.92}',
}
type Start = Callable[..., AbstractContextManager[httpx.Client]]

BYTES = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def empty(start_in: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Model Sharing API with nothing in it, for tests that leave it so."""
    with start_in(tmp_path_factory.mktemp("empty")) as client:
        yield client


def upload(api: httpx.Client, *, data: bytes = BYTES, slash: str = "", **changed: str) -> httpx.Response:
    return api.post(f"/api/v1/model{slash}", data=MODEL | changed, files={"file": ("m.onnx", data)})


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_health(empty: httpx.Client, prefix: str, slash: str) -> None:
    answer = empty.get(f"{prefix}/health{slash}")
    assert (answer.status_code, answer.json()) == (200, {"status": "UP"})


@pytest.mark.parametrize("path", ["/api/v1/model_catalog", "/api/v1/model_catalog/", "/api/v1/model/catalog"])
def test_an_empty_catalogue_is_404(empty: httpx.Client, path: str) -> None:
    answer = empty.get(path)
    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("slash", ["", "/"])
def test_upload_answers_the_record_directly(models: httpx.Client, slash: str) -> None:
    answer = upload(models, slash=slash)
    assert answer.status_code == 200
    assert answer.history == []
    assert answer.json() == {
        "modelIdentifier": 1,
        "name": "churn",
        "version": "1.0.0",
        "status": "production",
        "library": "onnx",
        "libraryVersion": "1.31",
        "domain": "software-vendor",
        "tag": "churn",
        "parameters": {"seed": 7},
        "characteristics": {"auc": 0.92},
        "sha256": f"sha256:{hashlib.sha256(BYTES).hexdigest()}",
        "size": len(BYTES),
    }


def test_bytes_and_record_come_back_by_id(models: httpx.Client) -> None:
    record = upload(models).json()
    for path in ("/api/v1/model/by_id/1", "/api/v1/model/by_id/1/?version=latest", "/api/v1/model/1?version=1.0.0"):
        answer = models.get(path)
        assert answer.content == BYTES
        assert answer.headers["content-type"] == "application/octet-stream"
    assert models.get("/api/v1/model/1/data").json() == record
    assert models.get("/api/v1/model/1/data/?version=1.0.0").json() == record


def test_latest_is_the_newest_semantic_version_of_that_name(models: httpx.Client) -> None:
    for version in ("1.9.0", "1.10.0", "1.10.0-rc.1", "nightly"):
        upload(models, version=version, data=version.encode())
    upload(models, name="other", version="9.0.0")
    for identifier in (1, 2, 3, 4):
        assert models.get(f"/api/v1/model/by_id/{identifier}").content == b"1.10.0"
        assert models.get(f"/api/v1/model/{identifier}/data").json()["modelIdentifier"] == 2
    assert models.get("/api/v1/model/by_id/1?version=1.9.0").content == b"1.9.0"


def test_a_version_must_be_the_one_of_the_id(models: httpx.Client) -> None:
    upload(models)
    upload(models, version="2.0.0", data=b"2")
    answer = models.get("/api/v1/model/by_id/1?version=2.0.0")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "model 1 is version 1.0.0, not 2.0.0"


def test_catalogue_filters(models: httpx.Client) -> None:
    upload(models)
    upload(models, version="2", tag="x", domain="mno-staging")
    upload(models, version="3", status="staging")
    upload(models, version="4", status="training")
    upload(models, version="5", status="development")
    filters: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [1, 2]),  # production, as nothing is said of the status
        ({"status": ""}, [1, 2]),
        ({"status": "staging"}, [3]),
        ({"status": "training"}, [4, 5]),
        ({"status": "development"}, [4, 5]),
        ({"status": ["production", "staging", "training"]}, [1, 2, 3, 4, 5]),
        ({"tag": "x"}, [2]),
        ({"tag": ""}, [1, 2]),
        ({"domain": "mno-staging"}, [2]),
        ({"name": "churn", "version": "1.0.0"}, [1]),
        ({"status": "staging", "version": "3"}, [3]),
    ]
    for path in ("/api/v1/model_catalog/", "/api/v1/model/catalog"):
        for query, found in filters:
            answer = models.get(path, params=query)
            assert [record["modelIdentifier"] for record in answer.json()["models"]] == found, query
        assert models.get(path, params={"status": "archived"}).status_code == 404
        assert models.get(path, params={"name": "nobody"}).status_code == 404


def test_the_word_for_a_status_stays_as_it_was_sent(models: httpx.Client) -> None:
    assert upload(models, version="4", status="training").json()["status"] == "training"
    assert upload(models, version="5", status="development").json()["status"] == "development"


def test_delete_wants_the_version_and_answers_the_record(models: httpx.Client) -> None:
    record = upload(models).json()
    assert models.delete("/api/v1/model/1").status_code == 422
    assert models.delete("/api/v1/model/1?version=3").status_code == 404
    answer = models.delete("/api/v1/model/1/?version=1.0.0")
    assert (answer.status_code, answer.json()) == (200, record)
    assert models.get("/api/v1/model/by_id/1").status_code == 404
    assert models.get("/api/v1/model_catalog").status_code == 404
    assert upload(models).json()["modelIdentifier"] == 2  # an identifier is never given twice


def test_only_name_version_and_file_are_required(models: httpx.Client) -> None:
    form = {"name": "a", "version": "1", "parameters": ""}
    answer = models.post("/api/v1/model", data=form, files={"file": b"x"})
    assert answer.json()["status"] == "production"
    assert answer.json()["parameters"] == {}


def test_a_retried_upload_answers_the_record_that_exists(models: httpx.Client) -> None:
    first = upload(models).json()
    assert upload(models).json() == first
    models.post("/api/v1/model/1/characteristics", json={"acceptance": {}})
    assert upload(models).json()["modelIdentifier"] == 1  # equal to what was uploaded
    models.patch("/api/v1/model/1", json={"status": "staging", "characteristics": {"auc": 0.92}})
    assert upload(models, status="staging").json()["modelIdentifier"] == 1  # equal to what is now


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"data": b"other"}, "bytes"), ({"tag": "other"}, "metadata"), ({"parameters": "{}"}, "metadata")],
)
def test_a_version_is_immutable(models: httpx.Client, changed: dict[str, Any], word: str) -> None:
    upload(models)
    answer = upload(models, **changed)
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        f"churn 1.0.0 is registered with other {word}; versions are immutable: publish a new version"
    )
    assert models.get("/api/v1/model/by_id/1").content == BYTES


@pytest.mark.parametrize("digest", [hashlib.sha256(BYTES).hexdigest(), f"sha256:{hashlib.sha256(BYTES).hexdigest()}"])
def test_artifacts_by_digest(models: httpx.Client, digest: str) -> None:
    assert models.get(f"/api/v1/artifacts/{digest}").status_code == 404
    upload(models)
    assert models.get(f"/api/v1/artifacts/{digest}").content == BYTES
    assert models.get(f"/api/v1/artifacts/{digest}/").content == BYTES


def test_equal_bytes_of_two_versions_stay_until_both_are_deleted(models: httpx.Client) -> None:
    digest = upload(models).json()["sha256"]
    upload(models, version="2")
    models.delete("/api/v1/model/1?version=1.0.0")
    assert models.get(f"/api/v1/artifacts/{digest}").content == BYTES
    models.delete("/api/v1/model/2?version=2")
    assert models.get(f"/api/v1/artifacts/{digest}").status_code == 404


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"status": "finished"}, "status"),
        ({"version": "latest"}, "version"),
        ({"version": ""}, "version"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "n" * 256}, "name"),
        ({"parameters": "[]"}, "parameters"),
        ({"parameters": "{"}, "parameters"),
        ({"characteristics": '{"auc": NaN}'}, "characteristics"),
        ({"characteristics": '{"half": "\\ud800"}'}, "characteristics"),
        ({"parameters": '{"huge": 1e999}'}, "parameters"),
        ({"parameters": '{"a":' * 100_000}, "parameters"),
    ],
)
def test_wrong_metadata_is_422_and_names_the_field(empty: httpx.Client, changed: dict[str, Any], place: str) -> None:
    answer = upload(empty, **changed)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{place}: ")
    assert empty.get("/api/v1/model_catalog").status_code == 404


def test_errors_have_detail_and_the_members_of_rfc_9457(empty: httpx.Client) -> None:
    answer = empty.get("/api/v1/model/7/data", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json() == {
        "type": "urn:hxmlops:problem:not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no model 7",
        "requestId": "mine-1",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/health", 405),
        ("GET", "/api/v1/model/x", 422),
        ("GET", f"/api/v1/model/{10**30}", 422),
        ("GET", "/api/v1/artifacts/..%2F..%2Fetc%2Fpasswd", 404),
    ],
)
def test_every_error_has_detail_as_a_string(empty: httpx.Client, method: str, path: str, status: int) -> None:
    answer = empty.request(method, path, headers={"X-Request-ID": "not harmless: {}"})
    assert answer.status_code == answer.json()["status"] == status
    assert isinstance(answer.json()["detail"], str)
    assert answer.json()["requestId"] == answer.headers["x-request-id"] != "not harmless: {}"
