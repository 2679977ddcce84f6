# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The modules by kind and group, under the names of the command line, and the roles behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hxMLOps.mistakes import Mistake, folded, nearest

PROJECT = Path(__file__).resolve().parents[1]
ROLES = PROJECT / "collections" / "ansible_collections" / "hxmlops" / "mlops" / "roles"

# kind: group: name on the command line: role
CATALOGUE: dict[str, dict[str, dict[str, str]]] = {
    "component": {
        "energy_measurement_asset": {"scaphandre": "scaphandre", "kepler": "kepler", "prometheus": "prometheus"},
        "ml_toolkit": {"kubeflowPipeline": "kubeflow_pipelines"},
        "monitoring": {"grafana": "grafana"},
        "serving_platform": {"torchserve": "torchserve", "tfserving": "tfserving", "model_server": "model_server"},
        "storage": {"postgres": "postgres", "minio": "minio", "pgadmin": "pgadmin", "timescale": "timescale"},
    },
    "link": {"api": {"datasetsharing": "dataset_sharing", "modelsharing": "model_sharing"}},
    "stage": {
        "data": {name: name for name in ("data_validation", "anonymization", "encryption")},
        "model": {name: name for name in ("training", "testing")},
    },
}
HELP = {
    "component": "Install software in a domain, or ask about it: databases, serving, pipelines, meters, dashboards.",
    "link": "Install the sharing APIs through which parties meet, or ask about them.",
    "stage": "Ask about the steps that a workflow runs on data and models.",
    "energy_measurement_asset": "Meters of energy, and the database of their series.",
    "ml_toolkit": "Pipelines.",
    "monitoring": "Dashboards.",
    "serving_platform": "What serves models.",
    "storage": "Databases and object storage.",
    "api": "The Dataset and the Model Sharing API.",
    "data": "Stages on data.",
    "model": "Stages on models.",
}
# stage: the playbook whose steps it is part of
PLAYBOOK_OF_STAGE = {
    "data_validation": "release_dataset",
    "anonymization": "release_dataset",
    "encryption": "release_dataset",
    "training": "build_model",
    "testing": "build_model",
}


@dataclass(frozen=True)
class Module:
    """A module under its name on the command line."""

    kind: str
    group: str
    name: str
    role: str

    @property
    def values(self) -> Path:
        """The file with its chart's values and their defaults."""
        return ROLES / self.role / "chart" / "values.yaml"

    @property
    def readme(self) -> Path:
        return ROLES / self.role / "README.md"


def modules(kind: str, group: str | None = None) -> Iterator[Module]:
    """All modules of a kind, or of one of its groups."""
    for each, names in CATALOGUE[kind].items():
        if group in (None, each):
            yield from (Module(kind, each, name, role) for name, role in names.items())


def check_group(kind: str, group: str) -> None:
    """Raises Mistake when a kind has no such group, with the nearest right one."""
    if group not in CATALOGUE[kind]:
        raise Mistake(f"{kind} has no group {group}: {nearest(group, CATALOGUE[kind])}")


def find(kind: str, group: str, word: str) -> Module:
    """The module of a group by its name or by its role's. Raises Mistake with the nearest right one."""
    check_group(kind, group)
    for module in modules(kind, group):
        if folded(word) in (folded(module.name), folded(module.role)):
            return module
    for module in (each for every in CATALOGUE for each in modules(every)):
        if folded(word) in (folded(module.name), folded(module.role)):
            raise Mistake(f"{word} is not in {kind} {group}, but in {module.kind} {module.group}")
    raise Mistake(f"{kind} {group} has no {word}: {nearest(word, CATALOGUE[kind][group])}")
