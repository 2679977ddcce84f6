"""What a model may be made of: ONNX without code or files of its own, and no pickle that is not allowed by
digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hxmlops_evidence.digests import sha256_file, walk
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.pickles import pickle_in

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets that come with ONNX; any other needs a library of somebody's code."""


def check_model_format(folder: Path, *, allow: Sequence[str], allow_pickles: Iterable[str]) -> None:
    """Refused("format") unless the folder holds a model in an allowed format, and no pickle but those
    allowed.

    `allow` names formats; `onnx` is the one that can be checked. `allow_pickles` are digests of files that
    may be, or hold, pickles. Every `*.onnx` must have exactly one input, of float32, only ONNX's own
    operators, and its weights inside. An ONNX file is read into memory, others are not. Imports onnx (0.1 s).
    """
    allowed = set(allow_pickles)
    paths = sorted(walk(folder))
    for path in paths:
        if (found := pickle_in(path)) and sha256_file(path) not in allowed:
            raise Refused(
                "format",
                f"{path.relative_to(folder)}: {found}; leave it out, or have its digest allowed in format_policy",
            )
    models = [path for path in paths if path.suffix.lower() == ".onnx"]
    if "onnx" not in allow or not models:
        raise Refused("format", f"no model in a format allowed here, which are: {', '.join(allow) or 'none'}")
    for path in models:
        if problem := _problem_with_onnx(path):
            raise Refused("format", f"{path.relative_to(folder)}: {problem}")


def _problem_with_onnx(path: Path) -> str | None:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if path.stat().st_size >= 1 << 31:
        return "larger than the 2 GiB of an ONNX model in one file"
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, ValueError):
        return "not an ONNX model; export it again"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        return "has weights in other files (external data); save it in one file"
    domains = {opset.domain for opset in model.opset_import}
    for function in model.functions:
        domains |= {function.domain, *(opset.domain for opset in function.opset_import)}
    domains |= {node.domain for graph in _graphs(model) for node in graph.node}
    if unknown := domains - DOMAINS:
        return f"needs operators of {', '.join(sorted(unknown))}, which are not ONNX's own"
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return "must have exactly one input, a tensor of float32; export it with FloatTensorType"
    return None


def _graphs(model: Any) -> Iterator[Any]:
    """The model's graphs and functions (whose nodes are alike), with the graphs inside their nodes."""
    waiting = [model.graph, *model.functions]
    for training in model.training_info:
        waiting += [training.initialization, training.algorithm]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in _attributes(graph):
            waiting += [attribute.g, *attribute.graphs]


def _attributes(graph: Any) -> Iterator[Any]:
    """Those of the nodes, and a function's defaults."""
    for node in graph.node:
        yield from node.attribute
    yield from getattr(graph, "attribute_proto", ())


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        if hasattr(graph, "initializer"):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for attribute in _attributes(graph):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
