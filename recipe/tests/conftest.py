"""A small contract that the tests start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

CONTRACT: dict[str, Any] = {
    "schema": {
        "subject": "subscriber",
        "target": "left",
        "columns": {
            "subscriber": {"type": "string"},
            "state": {"type": "string", "pattern": "^[A-Z]{2}$"},
            "tenure": {"type": "integer", "minimum": 0, "unit": "d"},
            "plan": {"type": "string", "values": ["basic", "plus"]},
            "device": {"type": "string", "nullable": True},
            "roaming": {"type": "boolean", "nullable": True},
            "minutes": {"type": "number", "minimum": 0, "nullable": True, "unit": "min"},
            "left": {"type": "string", "values": ["no", "yes"]},
        },
    },
    "recipe": {
        "drop": ["subscriber"],
        "quasi_identifiers": {
            "state": {
                "levels": ["value", "division", "region", "all"],
                "hierarchy": {
                    "division": {"Pacific": ["CA", "OR"], "Mountain": ["UT", "NV"]},
                    "region": {"West": ["Pacific", "Mountain"]},
                },
            },
            "tenure": {"levels": [50, 100, "all"]},
        },
        "sensitive": {"left": {"l": 2, "t": 0.5}},
        "k": 2,
        "suppression_limit": 0.1,
        "hidden_share": 0.2,
    },
    "model": {
        "task": "classification",
        "format": "onnx",
        "features": {
            "state": "one_hot",
            "tenure": "number",
            "plan": "one_hot",
            "device": "one_hot",
            "roaming": "number",
            "minutes": "number",
        },
        "output": {"name": "probabilities", "index": 1, "positive": "yes"},
        "metrics": ["roc_auc"],
    },
}


@pytest.fixture
def contract() -> Callable[..., dict[str, Any]]:
    """`contract(**{"recipe.k": 5})` answers CONTRACT with values put at dotted paths; None takes a key away."""
    return _changed


def _changed(**changes: Any) -> dict[str, Any]:
    result = copy.deepcopy(CONTRACT)
    for path, value in changes.items():
        *parents, last = path.split(".")
        part = result
        for name in parents:
            part = part[name]
        if value is None:
            del part[last]
        else:
            part[last] = value
    return result
