"""One loaded version: raw rows or feature matrices in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hxmlops_model_server.protocol import DATATYPES, BadRequest, Request, matrix, raw_columns
from hxmlops_model_server.verification import Unfit

FEATURES = "features"
SCORE = "score"
_DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_TRIAL = {"integer": 0, "number": 0.0, "string": "", "boolean": False}

type Matrix = npt.NDArray[np.float32]


class Model:
    """An ONNX model with the recipe before it. Its calls may run side by side in threads."""

    def __init__(
        self,
        onnx: bytes,
        *,
        transform: Callable[[dict[str, list[Any]]], Matrix],
        columns: Mapping[str, Mapping[str, Any]],
        used: Collection[str],
        width: int,
        output: Mapping[str, Any],
        threads: int,
    ) -> None:
        """`columns` are the contract's raw columns, `used` those of them that a row must have; of these
        `transform` makes `width` features. `output` is the contract's: the score is column `index` of the
        ONNX output `name`.

        Unfit when the model does not match.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._transform, self._columns, self._width = transform, columns, width
        self._used = [name for name in columns if name in used]
        self._output_name, self._output_index = str(output["name"]), int(output["index"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = {item.name: _datatype(item) for item in self._session.get_outputs()}
        self._shapes = {item.name: _shape(item.shape) for item in self._session.get_outputs()}
        if self._output_name not in self._outputs:
            raise Unfit(f"the model has no output {self._output_name}, which the contract names")
        self._outputs[SCORE], self._shapes[SCORE] = "FP32", [-1]
        self._try_out()

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Metadata of the raw columns that a row must have."""
        return [
            {"name": name, "datatype": DATATYPES[self._columns[name]["type"]][0], "shape": [-1]} for name in self._used
        ]

    @property
    def features(self) -> dict[str, Any]:
        """Metadata of the one input that may stand instead of the raw columns."""
        return {"name": FEATURES, "datatype": "FP32", "shape": [-1, self._width]}

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Metadata of the ONNX outputs and of the score, which hides an ONNX output of its name."""
        return [
            {"name": name, "datatype": datatype, "shape": self._shapes[name]}
            for name, datatype in self._outputs.items()
        ]

    def infer(self, request: Request) -> list[dict[str, Any]]:
        """The outputs that the request asks for, as protocol tensors. BadRequest when its inputs do not fit."""
        wanted = request.outputs or list(self._outputs)
        if not set(wanted) <= self._outputs.keys():
            raise BadRequest(f"an output is unknown: this model gives {', '.join(self._outputs)}")
        results = self._run(self._matrix(request), wanted)
        return [
            {
                "name": name,
                "datatype": self._outputs[name],
                "shape": list(results[name].shape),
                "data": results[name].ravel().tolist(),
            }
            for name in wanted
        ]

    def _matrix(self, request: Request) -> Matrix:
        if set(request.inputs) == {FEATURES} and FEATURES not in self._columns:
            with np.errstate(over="ignore"):
                rows = np.asarray(matrix(request.inputs[FEATURES], self._width), dtype=np.float32)
        else:
            raw = raw_columns(request.inputs, self._columns, self._used)
            try:
                rows = self._transform(raw)
            except ValueError as problem:
                raise BadRequest(str(problem)) from None
        if np.isinf(rows).any():
            raise BadRequest("a number is beyond what FP32 can hold")
        return rows

    def _run(self, rows: Matrix, wanted: list[str]) -> dict[str, npt.NDArray[Any]]:
        asked = list(dict.fromkeys(self._output_name if name == SCORE else name for name in wanted))
        results = dict(zip(asked, self._session.run(asked, {self._input: rows}), strict=True))
        if SCORE in wanted:
            values = results[self._output_name]
            results[SCORE] = values.reshape(len(rows), -1)[:, self._output_index].astype(np.float32)
        return results

    def _try_out(self) -> None:
        """One row through all: what does not fit fails now, and no client waits for the first call."""
        row = {name: [_TRIAL[self._columns[name]["type"]]] for name in self._used}
        try:
            self._run(self._transform(row), list(self._outputs))
        except Exception as problem:
            raise Unfit(
                f"the model does not take the recipe's {self._width} features to output "
                f"{self._output_name}[{self._output_index}] ({type(problem).__name__})"
            ) from None


def _datatype(output: Any) -> str:
    try:
        return _DATATYPES[output.type]
    except KeyError:
        raise Unfit(
            f"output {output.name} of the model is a {output.type}, not a tensor; convert without ZipMap"
        ) from None


def _shape(shape: list[Any]) -> list[int]:
    return [size if isinstance(size, int) and size > 0 else -1 for size in shape]
