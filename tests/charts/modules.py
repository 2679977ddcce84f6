"""The modules of the collection, as their roles have them: what the tests of charts go through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.charts.pack import COLLECTION

FULL = Path(__file__).resolve().parent / "full"
ROLES = COLLECTION / "roles"
MODULES = sorted(path.parent.name for path in ROLES.glob("*/module.yml"))


def read(path: Path) -> Any:
    """A YAML or JSON file."""
    return yaml.safe_load(path.read_text())


def module(name: str) -> dict[str, Any]:
    """A role's module.yml."""
    document: dict[str, Any] = read(ROLES / name / "module.yml")
    return document


def chart(name: str) -> Path:
    return ROLES / name / "chart"


def schema(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((chart(name) / "values.schema.json").read_text())
    return document


def full(name: str) -> list[Path]:
    """Files with values for all that a chart can be told: `<module>.yml`, and `<module>.<case>.yml` beside it."""
    return [FULL / f"{name}.yml", *sorted(FULL.glob(f"{name}.?*.yml"))]


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values as helm merges them: mappings by key, all else replaced."""
    both = {key: merged(values[key], over[key]) for key in values.keys() & over.keys() if isinstance(over[key], dict)}
    return values | over | both
