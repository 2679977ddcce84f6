"""The smoke test: which rows are sent, and what in their answers stops a promotion."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_stages.program import Failed
from hxmlops_stages.smoke_test import FEWEST_CALLS, Columns, Figures, Server, check, sample

ROWS = {"share": [0.0, 0.25, 0.5, 0.75, 1.0]}


def asked(answer: Any = lambda share: share, **options: Any) -> Figures:
    """The smoke test of a model that should answer with its only column, and answers so for each row."""

    def infer(sent: Columns) -> list[float]:
        return [answer(share) for share in sent["share"]]

    return check(infer, ROWS, ROWS["share"], **{"probabilities": True, "latency_ms_p95": 1000, **options})


def test_all_rows_are_sent_at_once_and_then_one_by_one() -> None:
    sizes: list[int] = []

    def infer(sent: Columns) -> list[float]:
        sizes.append(len(sent["share"]))
        return sent["share"]

    figures = check(infer, ROWS, ROWS["share"], probabilities=True, latency_ms_p95=1000)
    assert (figures.rows, figures.greatest_difference) == (5, 0.0)
    assert 0 < figures.latency_ms_p50 <= figures.latency_ms_p95
    assert sizes[0] == 5
    assert set(sizes[1:]) == {1}
    assert len(sizes) > FEWEST_CALLS


def test_a_difference_of_float32_is_none() -> None:
    assert asked(lambda share: share * (1 - 5e-6)).greatest_difference == pytest.approx(5e-6)


def test_great_values_are_compared_by_their_size() -> None:
    def infer(sent: Columns) -> list[float]:
        return [value + 1 for value in sent["speed"]]

    rows = {"speed": [1e6]}
    check(infer, rows, rows["speed"], probabilities=False, latency_ms_p95=1000)
    with pytest.raises(Refused, match="1 of 1 scores differ"):
        check(infer, {"speed": [1e3]}, [1e3], probabilities=False, latency_ms_p95=1000)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda share: share if share < 1 else math.nan, "a score is not a finite number"),
        (lambda share: share if share < 1 else math.inf, "a score is not a finite number"),
        (lambda share: 2 * share, "a score is not a probability between 0 and 1"),
        (lambda share: 1 - share, "4 of 5 scores differ from the same model's scores offline"),
    ],
)
def test_scores_that_are_wrong(answer: Any, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        asked(answer)
    assert (refusal.value.criterion, refusal.value.reason) == ("smoke_test", reason)


def test_a_score_too_few() -> None:
    def infer(sent: Columns) -> Sequence[float]:
        return sent["share"][1:]

    with pytest.raises(Refused, match="5 rows sent, 4 scores came back"):
        check(infer, ROWS, ROWS["share"], probabilities=True, latency_ms_p95=1000)  # type: ignore[arg-type]


def test_answers_that_come_too_late() -> None:
    def slow(share: float) -> float:
        time.sleep(0.002)
        return share

    with pytest.raises(Refused, match=r"95 % of requests take up to .* ms, more than the 1.5 ms allowed"):
        asked(slow, latency_ms_p95=1.5)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.parquet"
    columns = {"number": list(range(100)), 'say "it"': [str(row) for row in range(100)], "maybe": [None, 1.5] * 50}
    pq.write_table(pa.table(columns), path)
    return path


def test_the_sample_is_spread_over_the_data_and_always_the_same(data: Path) -> None:
    first = sample(data, ["number", 'say "it"', "maybe"], 4)
    assert first == {"number": [0, 25, 50, 75], 'say "it"': ["0", "25", "50", "75"], "maybe": [None, 1.5, None, 1.5]}
    assert sample(data, ["number"], 4) == {"number": first["number"]}
    assert len(sample(data, ["number"], 500)["number"]) == 100


def test_data_that_cannot_be_sampled(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^data.parquet has no column other, which the model's recipe needs$"):
        sample(data, ["number", "other"], 4)
    with pytest.raises(BadInput, match=r"^smoke_rows must be between 1 and 10000$"):
        sample(data, ["number"], 0)
    pq.write_table(pa.table({"number": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    with pytest.raises(BadInput, match=r"^none.parquet has no rows for the smoke test$"):
        sample(tmp_path / "none.parquet", ["number"], 4)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://here", "http://", "http://here/v2", "http://here:port"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(BadInput, match=r"must be http://host:port$"):
        Server(url)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(Failed, match=r"^no model server answers at http://127.0.0.1:1; start it"):
        Server("http://127.0.0.1:1").wait_until_live(seconds=0)
