"""Metrics of a model with bootstrap bounds, and the rule by which a gate reads them.

Every metric is computed from sums over rows that carry a weight. The value gives each row the weight 1; a
bootstrap resample (Efron, "Bootstrap methods: another look at the jackknife", 1979) gives it the number of
times it was drawn, so all resamples are computed at once and nothing is sorted twice. Bounds are the 2.5th
and 97.5th percentile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 200
# Weights held in memory at once: 4 million numbers of 8 bytes, whatever the number of rows.
_WEIGHTS_AT_ONCE = 4_000_000


class Bounds(TypedDict):
    """A metric's value with its bootstrap interval, in the metric's own unit."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Metric:
    """`compute(truth, score, weights)` answers one value for each row of `weights` [resamples, rows]."""

    compute: Callable[[Floats, Floats, Floats], Floats]
    task: Literal["classification", "regression"]
    higher_is_better: bool


def bounds(
    names: list[str], truth: Floats, score: Floats, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Bounds]:
    """Compute the named metrics and their 95 % bounds; the same arguments give the same figures.

    `truth`: 1.0 for the positive class and 0.0 otherwise, or the value to predict. `score`: the probability
    of the positive class, or the predicted value. Raises ValueError (one line) when there are too few rows
    for bounds.
    """
    if not len(truth):
        raise ValueError("there are no rows to test on")
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    once = np.ones((1, len(truth)))
    draws: dict[str, list[Floats]] = {name: [] for name in names}
    for weights in _resamples(len(truth), resamples, seed):
        for name in names:
            draws[name].append(METRICS[name].compute(truth, score, weights))
    result = {}
    tail = 100 * (1 - LEVEL) / 2
    for name in names:
        value = float(METRICS[name].compute(truth, score, once)[0])
        drawn = np.concatenate(draws[name])
        if not (np.isfinite(value) and np.isfinite(drawn).all()):
            raise ValueError(f"{len(truth)} rows are too few for bounds of {name}: {_what_lacks(name, truth)}")
        lower, upper = np.percentile(drawn, [tail, 100 - tail])
        result[name] = Bounds(value=value, lower=float(lower), upper=float(upper))
    return result


def meets(metric: str, bound: Bounds, threshold: float) -> bool:
    """Whether a metric is good enough for sure: its worse bound, not its value, is held to the threshold."""
    if METRICS[metric].higher_is_better:
        return bound["lower"] >= threshold
    return bound["upper"] <= threshold


def _resamples(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is drawn, [some resamples, rows]; rows are drawn with replacement."""
    random = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_AT_ONCE // rows)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(0, rows, size=(count, rows))
        drawn += np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def _what_lacks(name: str, truth: Floats) -> str:
    if METRICS[name].task == "classification":
        return f"only {int(min(truth.sum(), len(truth) - truth.sum()))} of the rarer class"
    return "the target hardly varies"


# Rows are sorted by falling score below. Rows of equal score form one step of the curve; `_steps` sums each.


def _steps(score: Floats, weights: Floats) -> Floats:
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    return np.add.reduceat(weights, starts, axis=1)


def _roc_auc(truth: Floats, score: Floats, weights: Floats) -> Floats:
    """Share of (positive, negative) pairs in the right order, ties count half (Hanley and McNeil, 1982)."""
    positive, negative = _steps(score, weights * truth), _steps(score, weights * (1 - truth))
    below = negative.sum(axis=1, keepdims=True) - np.cumsum(negative, axis=1)
    right = (positive * (below + negative / 2)).sum(axis=1)
    return _ratio(right, positive.sum(axis=1) * negative.sum(axis=1))


def _average_precision(truth: Floats, score: Floats, weights: Floats) -> Floats:
    """Sum over thresholds of (recall step) x precision, without interpolation, as scikit-learn defines it."""
    positive, total = _steps(score, weights * truth), _steps(score, weights)
    found, flagged = np.cumsum(positive, axis=1), np.cumsum(total, axis=1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def _mean_squared(truth: Floats, score: Floats, weights: Floats) -> Floats:
    return _ratio(weights @ (truth - score) ** 2, weights.sum(axis=1))


def _rmse(truth: Floats, score: Floats, weights: Floats) -> Floats:
    return np.sqrt(_mean_squared(truth, score, weights))


def _mae(truth: Floats, score: Floats, weights: Floats) -> Floats:
    return _ratio(weights @ np.abs(truth - score), weights.sum(axis=1))


def _r2(truth: Floats, score: Floats, weights: Floats) -> Floats:
    """1 - residual sum of squares / sum of squares around the (resample's own) mean."""
    centred = truth - truth.mean()
    around = weights @ centred**2 - (weights @ centred) ** 2 / weights.sum(axis=1)
    return 1 - _ratio(weights @ (truth - score) ** 2, around)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; where a resample lacks what the metric needs, the answer is NaN."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


METRICS = {
    "roc_auc": Metric(_roc_auc, "classification", higher_is_better=True),
    "average_precision": Metric(_average_precision, "classification", higher_is_better=True),
    "brier": Metric(_mean_squared, "classification", higher_is_better=False),  # Brier, 1950
    "mae": Metric(_mae, "regression", higher_is_better=False),
    "rmse": Metric(_rmse, "regression", higher_is_better=False),
    "r2": Metric(_r2, "regression", higher_is_better=True),
}
