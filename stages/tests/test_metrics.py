"""Metrics against scikit-learn, bounds against a plain loop, and the rule of the gate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as reference

from hxmlops_stages.metrics import METRICS, Bounds, bounds, meets

REFERENCES: dict[str, Callable[..., float]] = {
    "roc_auc": reference.roc_auc_score,
    "average_precision": reference.average_precision_score,
    "brier": reference.brier_score_loss,
    "mae": reference.mean_absolute_error,
    "rmse": reference.root_mean_squared_error,
    "r2": reference.r2_score,
}


def _rows(task: str, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Truth and score; scores are rounded, so that many are equal."""
    random = np.random.default_rng(seed)
    if task == "classification":
        truth = (random.random(count) < 0.2).astype(float)
        return truth, np.clip(np.round(0.3 * truth + 0.6 * random.random(count), 2), 0, 1)
    truth = random.normal(50, 10, count)
    return truth, np.round(truth + random.normal(0, 5, count))


@pytest.mark.parametrize("name", METRICS)
def test_value_equals_scikit_learns(name: str) -> None:
    truth, score = _rows(METRICS[name].task, 500)
    assert bounds([name], truth, score)[name]["value"] == pytest.approx(REFERENCES[name](truth, score), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_weighted_rows_equal_repeated_rows(name: str) -> None:
    truth, score = _rows(METRICS[name].task, 60)
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    times = np.random.default_rng(2).integers(0, 4, 60)
    weighted = METRICS[name].compute(truth, score, times[None, :].astype(float))[0]
    assert weighted == pytest.approx(REFERENCES[name](np.repeat(truth, times), np.repeat(score, times)), rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_bounds_equal_those_of_a_plain_bootstrap(name: str) -> None:
    """Another generator, one resample at a time, scikit-learn's metric: bounds agree within their noise."""
    truth, score = _rows(METRICS[name].task, 400)
    ours = bounds([name], truth, score, resamples=2000)[name]
    random = np.random.RandomState(3)
    draws = [random.randint(0, 400, 400) for _ in range(300)]
    plain = [REFERENCES[name](truth[drawn], score[drawn]) for drawn in draws]
    lower, upper = np.percentile(plain, [2.5, 97.5])
    spread = upper - lower
    assert ours["lower"] == pytest.approx(lower, abs=0.2 * spread)
    assert ours["upper"] == pytest.approx(upper, abs=0.2 * spread)
    assert ours["lower"] < ours["value"] < ours["upper"]


def test_bounds_of_a_mean_equal_the_formula() -> None:
    """The error's mean is normal with standard error s / sqrt(n), so its 95 % interval is known."""
    truth, score = _rows("regression", 2000)
    error = np.abs(truth - score)
    half = 1.96 * error.std() / np.sqrt(2000)
    mae = bounds(["mae"], truth, score, resamples=2000)["mae"]
    assert mae["lower"] == pytest.approx(error.mean() - half, abs=0.1 * half)
    assert mae["upper"] == pytest.approx(error.mean() + half, abs=0.1 * half)


def test_same_arguments_same_figures_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, score = _rows("classification", 300)
    names = ["roc_auc", "brier"]
    whole = bounds(names, truth, score, seed=5)
    assert bounds(names, truth, score, seed=5) == whole
    assert bounds(names, truth, score, seed=6) != whole
    monkeypatch.setattr("hxmlops_stages.metrics._WEIGHTS_AT_ONCE", 1000)
    chunked = bounds(names, truth, score, seed=5)
    assert all(chunked[name] == pytest.approx(whole[name], rel=1e-12) for name in names)


def test_perfect_and_useless_scores() -> None:
    truth = np.repeat([0.0, 1.0], 50)
    assert bounds(["roc_auc"], truth, truth)["roc_auc"] == Bounds(value=1, lower=1, upper=1)
    assert bounds(["roc_auc"], truth, np.zeros(100))["roc_auc"] == Bounds(value=0.5, lower=0.5, upper=0.5)


@pytest.mark.parametrize(
    ("names", "truth", "lacks"),
    [
        (["brier"], [], "no rows"),
        (["roc_auc"], [0.0, 0.0, 0.0], "only 0 of the rarer class"),
        (["average_precision"], [0.0] * 40 + [1.0, 1.0], "only 2 of the rarer class"),
        (["r2"], [3.0, 3.0, 3.0], "the target hardly varies"),
    ],
)
def test_too_few_rows_for_bounds(names: list[str], truth: list[float], lacks: str) -> None:
    with pytest.raises(ValueError, match=lacks):
        bounds(names, np.array(truth), np.linspace(0, 1, len(truth)))


@pytest.mark.parametrize(
    ("metric", "threshold", "good_enough"),
    [
        ("roc_auc", 0.85, True),  # lower bound 0.85
        ("roc_auc", 0.86, False),  # the value 0.90 is over it, its lower bound is not
        ("r2", 0.86, False),
        ("rmse", 0.95, True),  # upper bound 0.95
        ("rmse", 0.94, False),  # the value 0.90 is under it, its upper bound is not
        ("brier", 0.94, False),
        ("mae", 0.95, True),
    ],
)
def test_the_worse_bound_decides(metric: str, threshold: float, good_enough: bool) -> None:
    assert meets(metric, Bounds(value=0.90, lower=0.85, upper=0.95), threshold) is good_enough


def test_a_bound_that_is_no_number_is_never_good_enough() -> None:
    nothing = Bounds(value=float("nan"), lower=float("nan"), upper=float("nan"))
    assert not any(meets(metric, nothing, 0.5) for metric in METRICS)
