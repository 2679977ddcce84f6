"""Inference by ONNX Runtime: one model, loaded once from its bytes, and what one prediction takes.

The model must have been through `hxmlops_evidence.formats.check_model_format` or a gate: what is checked
here is that it fits the contract.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hxmlops_evidence.errors import Refused
from hxmlops_stages.energy import Joules, estimate

FILE = "model.onnx"
CALLS = 1000
_LONGEST_S = 5.0
_FEWEST_CALLS = 20
_WARM_UP = 10
_BATCH = 10_000


class Model:
    """A loaded model. It runs on one thread, so its answers do not vary and its cost is that of one vCPU."""

    def __init__(self, folder: Path, contract: dict[str, Any], features: int) -> None:
        """Load `folder`/model.onnx. Refused when it does not fit the contract or take `features` numbers."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # fatal: what goes wrong is raised, too
        try:
            data = (folder / FILE).read_bytes()
        except FileNotFoundError:
            raise Refused("model_file", f"the model has no {FILE}") from None
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime has no common base for its errors
            raise Refused("model_loads", f"{FILE} does not load: {str(problem)[:300]}") from None
        self._task, wanted = contract["model"]["task"], contract["model"]["output"]
        self._index = wanted["index"]
        self._output = _output(self._session, wanted["name"])
        self._input = _input(self._session, features)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predict rows [n, features]: probability of the positive class, or value. Refused when unusable."""
        parts = [self._predict(features[start : start + _BATCH]) for start in range(0, len(features), _BATCH)]
        predicted = np.concatenate(parts) if parts else np.empty(0)
        bad = int((~np.isfinite(predicted)).sum())
        if bad:
            raise Refused("model_outputs", f"{FILE} answers NaN or infinity for {bad} of {len(predicted)} rows")
        if self._task == "classification" and len(predicted):
            beyond = int(((predicted < -1e-6) | (predicted > 1 + 1e-6)).sum())
            if beyond:
                raise Refused("model_outputs", f"{FILE} answers no probability (0 to 1) for {beyond} rows")
            predicted = predicted.clip(0, 1)
        return predicted

    def run(self, rows: NDArray[np.float32]) -> Any:
        """The bare call, without any look at its answer."""
        return self._session.run([self._output], {self._input: rows})[0]

    def _predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        try:
            answer = self.run(rows)
        except Exception as problem:  # as above
            raise Refused("model_runs", f"{FILE} fails on {len(rows)} rows: {str(problem)[:300]}") from None
        if isinstance(answer, np.ndarray) and answer.dtype.kind == "f":
            table: NDArray[np.float64] = np.asarray(answer, np.float64)
            if table.ndim == 1 and self._index == 0:
                table = table[:, None]
            if table.ndim == 2 and table.shape[0] == len(rows) and self._index < table.shape[1]:
                return table[:, self._index]
        shape = list(getattr(answer, "shape", []))
        raise Refused(
            "model_outputs",
            f"{FILE} output {self._output} has shape {shape} for {len(rows)} rows; the contract reads column "
            f"{self._index} of a float tensor with a row for each input row",
        )


@dataclass(frozen=True)
class Cost:
    """What one prediction of one row takes: latency in ms, energy in J for 1,000 (estimated, with bounds)."""

    calls: int
    latency_ms_p50: float
    latency_ms_p95: float
    energy_j_per_1000: Joules


def measure(model: Model, features: NDArray[np.float32], calls: int = CALLS) -> Cost:
    """Predict single rows one after the other, `calls` times; fewer when that takes long."""
    rows = [features[index % len(features)][None, :] for index in range(min(calls, len(features)))]
    for index in range(_WARM_UP):
        model.run(rows[index % len(rows)])
    seconds: list[float] = []
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for index in range(calls):
        begun = time.perf_counter()
        model.run(rows[index % len(rows)])
        seconds.append(time.perf_counter() - begun)
        if index + 1 >= _FEWEST_CALLS and time.perf_counter() - wall_s > _LONGEST_S:
            break
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    thousand = 1000 / len(seconds)
    energy = estimate(cpu_s * thousand, wall_s * thousand, 1, memory_gb)
    return Cost(len(seconds), float(p50), float(p95), energy)


def _input(session: Any, features: int) -> str:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        given = ", ".join(f"{one.name}: {one.type}" for one in inputs) or "none"
        raise Refused("model_input", f"{FILE} must have one float32 input, it has {given}")
    rows, *columns = inputs[0].shape
    if isinstance(rows, int) or len(columns) != 1 or columns[0] != features:
        raise Refused(
            "model_input",
            f"{FILE} input {inputs[0].name} has shape {inputs[0].shape}; it must be [any rows, {features}]",
        )
    return str(inputs[0].name)


def _output(session: Any, name: str) -> str:
    names = [one.name for one in session.get_outputs()]
    if name not in names:
        raise Refused(
            "model_outputs",
            f"{FILE} has no output {name}, which the contract names; it has {', '.join(names)}",
        )
    return name
