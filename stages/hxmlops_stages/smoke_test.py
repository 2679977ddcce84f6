"""The smoke test: real raw rows to a version that is served, before anybody depends on it."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_stages.program import Failed

TOLERANCE = 1e-5  # of a score, relative where it is above 1: float32 by two ways
FEWEST_CALLS = 20  # a 95th percentile of fewer means nothing
MAX_ROWS = 10_000
_WARM_UP = 5
_TIMEOUT_S = 30.0
_DATATYPES = {"integer": "INT64", "number": "FP64", "string": "BYTES", "boolean": "BOOL"}

type Columns = dict[str, list[Any]]


class Unreachable(Failed):
    """The server gave no answer. One line."""


@dataclass(frozen=True)
class Answer:
    """An inference response: the version that gave it, and a score for each row."""

    version: str
    scores: list[float]


class Server:
    """A model server (Open Inference Protocol v2, REST) over one connection, closed at the end of a `with`."""

    def __init__(self, url: str) -> None:
        """BadInput unless `url` is of the form http(s)://host[:port]."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.path.strip("/"):
            raise BadInput(f"server_url {url}: must be http://host:port")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url = url.rstrip("/")
        self._connection = kind(parts.hostname, port, timeout=_TIMEOUT_S)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def wait_until_live(self, seconds: float) -> None:
        """Failed when the server does not answer within `seconds`: it may just be starting."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.get("/v2/health/live")[0] == 200:
                    return
            except Unreachable:
                pass
            if time.monotonic() > deadline:
                raise Failed(f"no model server answers at {self.url}; start it (playbooks/deploy.yml) or mend its url")
            time.sleep(0.1)

    def parameters(self, name: str, version: str | None) -> dict[str, Any]:
        """What the server says of a version (None: the current one): `version`, `state`, `reason`, `model_digest`,
        `listed_at`; {} when it does not know it. Unreachable.
        """
        status, document = self.get(_path(name, version))
        return dict(document["parameters"]) if status == 200 else {}

    def infer(self, name: str, version: str | None, rows: Columns, declared: Mapping[str, Mapping[str, Any]]) -> Answer:
        """Score raw rows, whose columns are as the contract declares them. Refused when they are not scored."""
        count = len(next(iter(rows.values())))
        inputs = [
            {"name": column, "datatype": _DATATYPES[declared[column]["type"]], "shape": [count], "data": values}
            for column, values in rows.items()
        ]
        body = json.dumps({"inputs": inputs, "outputs": [{"name": "score"}]}).encode()
        status, document = self._call("POST", _path(name, version) + "/infer", body)
        if status != 200:
            raise Refused("smoke_test", f"the server answers {status}: {document.get('error', 'no reason given')}")
        try:
            [score] = document["outputs"]
            return Answer(str(document["model_version"]), [float(value) for value in score["data"]])
        except (KeyError, TypeError, ValueError):
            raise Refused("smoke_test", "the server's answer has no output score") from None

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON. Unreachable without an answer."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            raise Unreachable(f"the server at {self.url} does not answer ({type(problem).__name__})") from None
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        return response.status, document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class Figures:
    """What the smoke test has measured. Latencies in ms, of requests of one row, by the client's clock."""

    rows: int
    greatest_difference: float
    latency_ms_p50: float
    latency_ms_p95: float


def sample(data: Path, columns: Sequence[str], rows: int) -> Columns:
    """`rows` rows of a Parquet file, evenly spread and always the same. BadInput when it has none."""
    import duckdb

    if not 1 <= rows <= MAX_ROWS:
        raise BadInput(f"smoke_rows must be between 1 and {MAX_ROWS}")
    with duckdb.connect() as connection:
        source = connection.read_parquet(str(data), file_row_number=True)
        missing = [name for name in columns if name not in source.columns]
        if missing:
            raise BadInput(f"{data.name} has no column {missing[0]}, which the model's recipe needs")
        [(count,)] = source.count("*").fetchall()
        if not count:
            raise BadInput(f"{data.name} has no rows for the smoke test")
        rows = min(rows, count)
        places = ", ".join(str(index * count // rows) for index in range(rows))
        names = ", ".join(f'"{name.replace('"', '""')}"' for name in columns)
        found = source.filter(f"file_row_number in ({places})").order("file_row_number").project(names).fetchall()
    return {name: list(values) for name, values in zip(columns, zip(*found, strict=True), strict=True)}


def check(
    infer: Callable[[Columns], list[float]],
    columns: Columns,
    expected: Sequence[float],
    *,
    probabilities: bool,
    latency_ms_p95: float,
) -> Figures:
    """Send all rows at once, then one by one. Refused("smoke_test") unless each score is finite, a probability when
    `probabilities`, as `expected`, and 95 % of the single rows are answered within `latency_ms_p95`."""
    scores = infer(columns)
    if len(scores) != len(expected):
        raise Refused("smoke_test", f"{len(expected)} rows sent, {len(scores)} scores came back")
    difference = _compare(scores, expected, probabilities=probabilities)
    singles = [{name: [values[row]] for name, values in columns.items()} for row in range(len(expected))]
    for row in range(_WARM_UP):
        infer(singles[row % len(singles)])
    milliseconds: list[float] = []
    for call in range(max(FEWEST_CALLS, len(singles))):
        row = call % len(singles)
        start = time.perf_counter()
        score = infer(singles[row])
        milliseconds.append((time.perf_counter() - start) * 1000)
        difference = max(difference, _compare(score, expected[row : row + 1], probabilities=probabilities))
    milliseconds.sort()
    p50, p95 = _quantile(milliseconds, 0.5), _quantile(milliseconds, 0.95)
    if p95 > latency_ms_p95:
        raise Refused(
            "smoke_test", f"95 % of requests take up to {p95:.1f} ms, more than the {latency_ms_p95:g} ms allowed"
        )
    return Figures(len(expected), difference, p50, p95)


def _compare(scores: Sequence[float], expected: Sequence[float], *, probabilities: bool) -> float:
    """The greatest difference. Refused("smoke_test") when one is too great, or a score is none."""
    if not all(map(math.isfinite, scores)):
        raise Refused("smoke_test", "a score is not a finite number")
    if probabilities and not all(-1e-6 <= score <= 1 + 1e-6 for score in scores):
        raise Refused("smoke_test", "a score is not a probability between 0 and 1")
    differences = [abs(got - due) / max(1.0, abs(due)) for got, due in zip(scores, expected, strict=True)]
    if max(differences) > TOLERANCE:
        wrong = sum(difference > TOLERANCE for difference in differences)
        raise Refused("smoke_test", f"{wrong} of {len(scores)} scores differ from the same model's scores offline")
    return max(differences)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _path(name: str, version: str | None) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"
