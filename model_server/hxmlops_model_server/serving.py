"""Reads `serving.json`: which versions of which models this server is to have, and which one answers by default.

    {"schema_version": "1.0",
     "models": {"churn": {
       "current": "1.0.2",            # answers where a request names no version; null: none does yet
       "previous": "1.0.1",           # kept ready so that one can go back to it; null: there is none
       "rolled_back_from": null,      # the version that a rollback to the current one left; not read here
       "versions": {"1.0.2": {
         "folder": "churn/1.0.2",     # paths are relative to the folder of serving.json
         "model": "churn/1.0.2/model.onnx",
         "recipe": "churn/1.0.2/recipe.json",
         "model_digest": "sha256:…",  # the model's content: subject of its evidence and of its acceptance
         "recipe_digest": "sha256:…",
         "contract_digest": "sha256:…",
         "workflow": {"id": "churn", "vendor": "…", "acceptor": "…", "server": "…"},
         "columns": {…},              # the contract's columns of raw rows
         "output": {"name": "probabilities", "index": 1},
         "listed_at": "2026-11-23T10:00:00.000Z"}}}}}

A version whose entry changes in any way is loaded afresh. Beside a version's model and recipe stand its
`evidence.dsse.json` and `acceptance.dsse.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "serving.json"


@dataclass(frozen=True)
class Version:
    """One version of one model as serving.json lists it; paths are absolute."""

    name: str
    version: str
    folder: Path
    model: Path
    recipe: Path
    model_digest: str
    recipe_digest: str
    contract_digest: str
    workflow: dict[str, str]
    columns: dict[str, Any]
    output: dict[str, Any]
    listed_at: str


@dataclass(frozen=True)
class Listing:
    """One model of serving.json."""

    current: str | None
    previous: str | None
    versions: dict[str, Version]


def read(folder: Path) -> dict[str, Listing]:
    """The models that `folder`/serving.json lists; none without such a file. ValueError (one line) if damaged."""
    try:
        document = json.loads((folder / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ValueError(f"{FILE_NAME}: not JSON; promote again to write it anew") from None
    try:
        if document["schema_version"].partition(".")[0] != "1":
            raise ValueError(f"{FILE_NAME}: schema_version is not 1.x; this server is too old for it")
        return {name: _listing(folder, name, model) for name, model in document["models"].items()}
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"{FILE_NAME}: not of the form this server reads ({type(problem).__name__}: {problem})"
        ) from None


def _listing(folder: Path, name: str, model: dict[str, Any]) -> Listing:
    versions = {version: _version(folder, name, version, entry) for version, entry in model["versions"].items()}
    for role in ("current", "previous"):
        if model[role] is not None and model[role] not in versions:
            raise ValueError(f"{FILE_NAME}: the {role} version of {name} is not among its versions")
    return Listing(model["current"], model["previous"], versions)


def _version(folder: Path, name: str, version: str, entry: dict[str, Any]) -> Version:
    return Version(
        name=name,
        version=version,
        folder=_inside(folder, entry["folder"]),
        model=_inside(folder, entry["model"]),
        recipe=_inside(folder, entry["recipe"]),
        model_digest=entry["model_digest"],
        recipe_digest=entry["recipe_digest"],
        contract_digest=entry["contract_digest"],
        workflow=entry["workflow"],
        columns=entry["columns"],
        output=entry["output"],
        listed_at=entry["listed_at"],
    )


def _inside(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{FILE_NAME}: a path leads out of the serving folder")
    return path
