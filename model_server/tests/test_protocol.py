"""Requests as the Open Inference Protocol has them, and what is wrong with others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hxmlops_model_server.protocol import MAX_ROWS, BadRequest, Request, Tensor, answer, matrix, parse, raw_columns

COLUMNS: dict[str, dict[str, Any]] = {
    "subscriber": {"type": "integer"},
    "state": {"type": "string"},
    "tenure": {"type": "integer"},
    "minutes": {"type": "number", "nullable": True},
    "roaming": {"type": "boolean"},
}
USED = ["state", "tenure", "minutes", "roaming"]


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


ROWS = {
    "state": tensor("state", "BYTES", ["CA", "NY"]),
    "tenure": tensor("tenure", "INT64", [120, 3]),
    "minutes": tensor("minutes", "FP64", [1.5, None]),
    "roaming": tensor("roaming", "BOOL", [True, False]),
}


def request(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def test_a_request_of_raw_columns() -> None:
    read = parse(request(*ROWS.values(), id="42", outputs=[{"name": "score"}]))
    assert (read.id, read.outputs) == ("42", ["score"])
    assert raw_columns(read.inputs, COLUMNS, USED) == {
        "state": ["CA", "NY"],
        "tenure": [120, 3],
        "minutes": [1.5, None],
        "roaming": [True, False],
    }


def test_columns_may_stand_upright_and_those_without_a_feature_may_be_sent_too() -> None:
    upright = [{**column, "shape": [2, 1], "data": [[value] for value in column["data"]]} for column in ROWS.values()]
    read = parse(request(*upright, tensor("subscriber", "INT32", [1, 2])))
    assert list(raw_columns(read.inputs, COLUMNS, USED)) == USED


def test_a_feature_matrix_may_be_flat_or_nested() -> None:
    flat = parse(request(tensor("features", "FP32", [1, 2, 3, 4], [2, 2])))
    nested = parse(request(tensor("features", "FP32", [[1, 2], [3, 4]], [2, 2])))
    assert matrix(flat.inputs["features"], 2) == matrix(nested.inputs["features"], 2) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"plan": tensor("plan", "BYTES", ["x", "y"])}, "input 'plan' is unknown: this model takes state, tenure"),
        ({"state": None}, "input 'state' is missing"),
        ({"tenure": tensor("tenure", "FP64", [1.0, 2.0])}, "input 'tenure': datatype must be INT64 or INT32"),
        ({"tenure": tensor("tenure", "INT64", [1, 2, 3])}, r"input 'tenure': shape must be \[2\] or \[2, 1\]"),
        ({"tenure": tensor("tenure", "INT64", [1, None])}, "input 'tenure': data has null, but the column is not null"),
    ],
)
def test_columns_that_do_not_fit_the_schema(change: Any, reason: str) -> None:
    columns = {name: column for name, column in {**ROWS, **change}.items() if column}
    with pytest.raises(BadRequest, match=reason):
        raw_columns(parse(request(*columns.values())).inputs, COLUMNS, USED)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (tensor("a", "INT16", [1]), "datatype must be one of BYTES, BOOL"),
        (tensor("a", "INT64", [1, 2], [3]), "as many elements as its shape says"),
        (tensor("a", "INT64", [1], [1, 1, 1]), "shape must be one or two positive integers"),
        (tensor("a", "INT64", [], [0]), "shape must be one or two positive integers"),
        (tensor("a", "INT64", [1], [True]), "shape must be one or two positive integers"),
        (tensor("a", "INT64", [1.5]), "an element that is not INT64"),
        (tensor("a", "INT64", [True]), "an element that is not INT64"),
        (tensor("a", "BOOL", [1]), "an element that is not BOOL"),
        (tensor("a", "BYTES", [b"x".hex(), 3]), "an element that is not BYTES"),
        (tensor("a", "FP64", ["1"]), "an element that is not FP64"),
        (tensor("a", "INT32", [2**31]), "an element that INT32 cannot hold"),
        (tensor("a", "INT64", [2**63]), "an element that INT64 cannot hold"),
        (tensor("a", "FP64", [10**400]), "an element that FP64 cannot hold"),
        (tensor("a", "BYTES", ["\ud800"]), "an element that BYTES cannot hold"),
        (tensor("a", "BYTES", ["x"] * (MAX_ROWS + 1)), "more than 10000 rows; send several requests"),
        ({"name": "a", "datatype": "BYTES", "shape": [1], "data": "x"}, "data must be a list"),
        ({"name": 3}, "an input has no name"),
        ("a", "an input has no name"),
    ],
)
def test_inputs_that_are_none(wrong: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        parse(request(wrong))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (request(tensor("a", "FP64", [float("nan")])), "the body is not JSON"),
        (b"[]", "the body has no list of inputs"),
        (b'{"inputs": []}', "the body has no list of inputs"),
        (request(tensor("a", "BOOL", [True]), tensor("a", "BOOL", [True])), "two inputs have one name"),
        (request(tensor("a", "BOOL", [True]), id=42), "id is not a string"),
        (request(tensor("a", "BOOL", [True]), outputs=["score"]), "an output has no name"),
        (b'{"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [1e999]}]}', "FP64 cannot hold"),
    ],
)
def test_bodies_that_are_no_request(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        parse(body)


def test_a_refusal_is_one_line_and_without_data() -> None:
    odd_name = "line\nbreak" + "x" * 500
    with pytest.raises(BadRequest) as refusal:
        parse(request(tensor(odd_name, "INT64", ["a secret"])))
    assert len(str(refusal.value)) < 200
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_answer_bears_the_requests_id_and_refuses_what_json_cannot_say() -> None:
    sent = Request("42", {"a": Tensor("a", "BOOL", [1], [True])}, None)
    score = {"name": "score", "datatype": "FP32", "shape": [1], "data": [0.5]}
    assert json.loads(answer("churn", "1.0.1", sent, [score])) == {
        "model_name": "churn",
        "model_version": "1.0.1",
        "id": "42",
        "outputs": [score],
    }
    with pytest.raises(ValueError, match="JSON"):
        answer("churn", "1.0.1", sent, [score | {"data": [float("nan")]}])
