"""The protocol by HTTP: two versions are served, clients ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hxmlops_model_server.app import MAX_BODY
from hxmlops_model_server.testing import INFER, ROW, VALUES, Client, Server, Serving, probability, tiny_model

type Start = Callable[[Serving], Server]

FEATURES: dict[str, Any] = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": VALUES}


@pytest.fixture(scope="module")
def two_versions(one_server: Server) -> Server:
    """A server of versions 1.0.0 (previous) and 1.0.1 (current)."""
    one_server.empty()
    one_server.serving.add("1.0.0", tiny_model(0.0))
    one_server.serving.add("1.0.1", tiny_model(1.0))
    one_server.serving.switch("1.0.1", "1.0.0")
    one_server.client.wait("1.0.0")
    one_server.client.wait_current("1.0.1")
    one_server.client.wait("1.0.1")
    return one_server


@pytest.fixture
def client(two_versions: Server) -> Iterator[Client]:
    with Client(two_versions.started["port"]) as client:
        yield client


def test_what_the_server_says_of_itself(client: Client) -> None:
    assert client.get("/v2") == (200, {"name": "hxmlops_model_server", "version": "0.1.0", "extensions": []})
    assert client.get("/v2/health/live") == (200, {"live": True})
    assert client.get("/v2/health/ready") == (200, {"live": True, "ready": True})


def test_what_the_server_says_of_a_model(client: Client) -> None:
    status, metadata = client.get("/v2/models/churn")
    assert status == 200
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        "churn",
        ["1.0.0", "1.0.1"],
        "onnx_onnxv1",
    )
    assert [(item["name"], item["datatype"]) for item in metadata["inputs"]] == [
        ("state", "BYTES"),
        ("tenure", "INT64"),
        ("minutes", "FP64"),
        ("roaming", "BOOL"),
    ]
    assert metadata["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "score", "datatype": "FP32", "shape": [-1]},
    ]
    assert metadata["parameters"].items() >= {"version": "1.0.1", "current": True, "state": "ready"}.items()
    assert metadata["parameters"]["instead_of_inputs"] == {"name": "features", "datatype": "FP32", "shape": [-1, 4]}
    assert client.get("/v2/models/churn/ready") == (200, {"name": "churn", "ready": True})
    assert client.get("/v2/models/churn/versions/1.0.0/ready") == (200, {"name": "churn", "ready": True})


def test_raw_columns_pass_the_recipe_and_a_request_without_version_gets_the_current_one(client: Client) -> None:
    status, answer = client.post(INFER, {"id": "42", "inputs": ROW})
    assert status == 200
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "churn", "1.0.1")
    label, probabilities, score = answer["outputs"]
    assert label == {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [1, 2])
    assert (score["datatype"], score["shape"]) == ("FP32", [1])
    assert score["data"] == probabilities["data"][1:] == [pytest.approx(probability(1.0), abs=1e-6)]


def test_a_feature_matrix_passes_no_recipe_and_a_version_may_be_named(client: Client) -> None:
    status, answer = client.post("/v2/models/churn/versions/1.0.0/infer", {"inputs": [FEATURES]})
    assert (status, answer["model_version"]) == (200, "1.0.0")
    assert answer["outputs"][2]["data"] == [pytest.approx(probability(0.0), abs=1e-6)]


def test_only_the_outputs_that_are_asked_for(client: Client) -> None:
    status, answer = client.post(INFER, {"inputs": ROW, "outputs": [{"name": "score"}, {"name": "label"}]})
    assert (status, [output["name"] for output in answer["outputs"]]) == (200, ["score", "label"])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"{", "the body is not JSON"),
        ({"inputs": [*ROW, {**ROW[0], "name": "plan"}]}, "input 'plan' is unknown: this model takes state, tenure"),
        ({"inputs": ROW[1:]}, "input 'state' is missing"),
        ({"inputs": [{**ROW[0], "shape": [2]}]}, "input 'state': data does not have as many elements"),
        ({"inputs": [{**ROW[0], "datatype": "FP32"}]}, "input 'state': data has an element that is not FP32"),
        ({"inputs": [{**FEATURES, "shape": [2, 2]}]}, "input 'features': shape must be [rows, 4]"),
        ({"inputs": [{**FEATURES, "datatype": "FP64"}]}, "input 'features': datatype must be FP32"),
        ({"inputs": [{**FEATURES, "data": [1e39, 0, 0, 0]}]}, "a number is beyond what FP32 can hold"),
        ({"inputs": [*ROW[:2], {**ROW[2], "data": [1e300]}, ROW[3]]}, "a number is beyond what its column can hold"),
        (
            {"inputs": ROW, "outputs": [{"name": "logit"}]},
            "an output is unknown: this model gives label, probabilities",
        ),
    ],
)
def test_a_bad_request_gets_one_line(client: Client, document: Any, reason: str) -> None:
    status, answer = client.post(INFER, document)
    assert status == 400
    assert list(answer) == ["error"]
    assert answer["error"].startswith(reason)
    assert "\n" not in answer["error"]


def test_ten_thousand_rows_are_answered_and_one_more_is_not(client: Client) -> None:
    def rows(count: int) -> dict[str, Any]:
        return {"inputs": [{**column, "shape": [count], "data": column["data"] * count} for column in ROW]}

    status, answer = client.post(INFER, rows(10_000))
    assert (status, answer["outputs"][2]["shape"]) == (200, [10_000])
    assert len(set(answer["outputs"][2]["data"])) == 1
    assert client.post(INFER, rows(10_001)) == (
        400,
        {"error": "input 'state': more than 10000 rows; send several requests"},
    )


def test_a_body_beyond_the_limit(client: Client) -> None:
    client.connection.putrequest("POST", INFER)
    client.connection.putheader("Content-Length", str(MAX_BODY + 1))
    client.connection.endheaders()
    response = client.connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"].startswith("the body is larger than 33554432 bytes")


def test_a_body_beyond_the_limit_that_does_not_say_its_length(client: Client) -> None:
    piece = b" " * (1024 * 1024)
    try:
        client.connection.request(
            "POST", INFER, iter([piece] * 34), {"Transfer-Encoding": "chunked"}, encode_chunked=True
        )
    except ConnectionError:
        return  # the server has hung up amid the body, its answer was lost
    assert client.connection.getresponse().status == 413


def test_what_is_not_there(client: Client) -> None:
    assert client.get("/v2/models/other") == (404, {"error": "no such model"})
    assert client.get("/v2/models/churn/versions/9") == (404, {"error": "the model has no such version"})
    assert client.get("/v1") == (404, {"error": "Not Found"})
    assert client.get(INFER) == (405, {"error": "Method Not Allowed"})


def test_a_model_that_fails_on_a_row_is_logged_without_the_row(two_versions: Server, client: Client) -> None:
    missing = [*ROW[:2], {**ROW[2], "data": [None]}, ROW[3]]  # the column may lack a value, this model knows no NaN
    assert client.post(INFER, {"inputs": missing}) == (500, {"error": "the model cannot answer this request"})
    logged = two_versions.wait_for("inference_failed")
    assert set(logged) == {"time", "event", "model", "version", "error"}
