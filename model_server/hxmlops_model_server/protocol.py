"""Requests and answers of the Open Inference Protocol, v2, as JSON.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md. Beyond it, `null` stands for a missing
value, in columns whose schema is nullable and in feature matrices. Tensor data may be nested or flat, row-major.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_ROWS = 10_000
# Which protocol datatypes may carry a column of which contract type.
DATATYPES = {
    "integer": ("INT64", "INT32"),
    "number": ("FP64", "FP32", "INT64", "INT32"),
    "string": ("BYTES",),
    "boolean": ("BOOL",),
}
_PYTHON_TYPES: dict[str, frozenset[type]] = {
    "BYTES": frozenset({str}),
    "BOOL": frozenset({bool}),
    "INT64": frozenset({int}),
    "INT32": frozenset({int}),
    "FP64": frozenset({int, float}),
    "FP32": frozenset({int, float}),
}
_INTEGER_LIMITS = {"INT64": 2**63, "INT32": 2**31}


class BadRequest(Exception):
    """The request cannot be answered. One line without any value from the request's data."""


@dataclass(frozen=True)
class Tensor:
    """One named input: `data` is flat, and has as many elements as `shape` says, all of `datatype` or None."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


@dataclass(frozen=True)
class Request:
    """An inference request. `outputs` are the names asked for; None: all of them."""

    id: str | None
    inputs: dict[str, Tensor]
    outputs: list[str] | None


def parse(body: bytes) -> Request:
    """Read an inference request. BadRequest when it is not one."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
        raise BadRequest("the body has no list of inputs")
    tensors = [_tensor(item) for item in document["inputs"]]
    inputs = {tensor.name: tensor for tensor in tensors}
    if len(inputs) < len(tensors):
        raise BadRequest("two inputs have one name")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise BadRequest("id is not a string")
    return Request(identifier, inputs, _outputs(document.get("outputs")))


def raw_columns(
    inputs: Mapping[str, Tensor], columns: Mapping[str, Mapping[str, Any]], used: Sequence[str]
) -> dict[str, list[Any]]:
    """The `used` ones of the contract's `columns`, as lists of one length; others of them may be sent and are ignored.

    BadRequest names the input that is wrong.
    """
    for name in inputs:
        if name not in columns:
            raise BadRequest(f"input {_quoted(name)} is unknown: this model takes {', '.join(used)}")
    missing = [name for name in used if name not in inputs]
    if missing:
        raise BadRequest(f"input {_quoted(missing[0])} is missing")
    rows = _rows(inputs[used[0]])
    for name in used:
        tensor, column = inputs[name], columns[name]
        allowed = DATATYPES[column["type"]]
        if tensor.datatype not in allowed:
            raise BadRequest(f"input {_quoted(name)}: datatype must be {' or '.join(allowed)}")
        if tensor.shape not in ([rows], [rows, 1]):
            raise BadRequest(f"input {_quoted(name)}: shape must be [{rows}] or [{rows}, 1]")
        if None in tensor.data and not column.get("nullable"):
            raise BadRequest(f"input {_quoted(name)}: data has null, but the column is not nullable")
    return {name: inputs[name].data for name in used}


def matrix(tensor: Tensor, width: int) -> list[list[Any]]:
    """The rows of a feature matrix, each of `width` numbers. BadRequest when it is not of that form."""
    if tensor.datatype != "FP32":
        raise BadRequest(f"input {_quoted(tensor.name)}: datatype must be FP32")
    rows = _rows(tensor)
    if tensor.shape != [rows, width]:
        raise BadRequest(f"input {_quoted(tensor.name)}: shape must be [rows, {width}]")
    return [tensor.data[start : start + width] for start in range(0, rows * width, width)]


def answer(name: str, version: str, request: Request, outputs: Sequence[Mapping[str, Any]]) -> bytes:
    """The JSON of an inference response. ValueError when an output is not finite, for which JSON has no word."""
    document: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    return json.dumps(document | {"outputs": outputs}, allow_nan=False, separators=(",", ":")).encode()


def _tensor(item: object) -> Tensor:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise BadRequest("an input has no name")
    name, datatype, shape, data = item["name"], item.get("datatype"), item.get("shape"), item.get("data")
    if datatype not in _PYTHON_TYPES:
        raise BadRequest(f"input {_quoted(name)}: datatype must be one of {', '.join(_PYTHON_TYPES)}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(type(n) is int and n > 0 for n in shape):
        raise BadRequest(f"input {_quoted(name)}: shape must be one or two positive integers")
    if shape[0] > MAX_ROWS:
        raise BadRequest(f"input {_quoted(name)}: more than {MAX_ROWS} rows; send several requests")
    if not isinstance(data, list):
        raise BadRequest(f"input {_quoted(name)}: data must be a list")
    if len(shape) == 2 and len(data) == shape[0] and all(type(row) is list and len(row) == shape[1] for row in data):
        data = [value for row in data for value in row]
    if len(data) != math.prod(shape):
        raise BadRequest(f"input {_quoted(name)}: data does not have as many elements as its shape says")
    _check_elements(name, datatype, data)
    return Tensor(name, datatype, shape, data)


def _check_elements(name: str, datatype: str, data: list[Any]) -> None:
    if not {type(value) for value in data} <= _PYTHON_TYPES[datatype] | {type(None)}:
        raise BadRequest(f"input {_quoted(name)}: data has an element that is not {datatype}")
    present = [value for value in data if value is not None]
    try:
        if datatype in _INTEGER_LIMITS:
            limit = _INTEGER_LIMITS[datatype]
            fits = all(-limit <= value < limit for value in present)
        elif datatype == "BYTES":
            fits = bool("".join(present).encode("utf-8")) or True
        else:
            fits = all(map(math.isfinite, present))
    except (OverflowError, UnicodeEncodeError):
        fits = False
    if not fits:
        raise BadRequest(f"input {_quoted(name)}: data has an element that {datatype} cannot hold")


def _outputs(items: object) -> list[str] | None:
    if items is None:
        return None
    if not isinstance(items, list) or not items:
        raise BadRequest("outputs is not a list of outputs")
    if not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items):
        raise BadRequest("an output has no name")
    return [item["name"] for item in items]


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0]


def _quoted(name: str) -> str:
    """A name as the request gave it, safe to put into one line."""
    return repr(name if len(name) <= 80 else name[:79] + "…")


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
