# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The workflow file: loaded, its keys checked, its paths resolved against its folder.

What stands under ``contract`` is checked by a program that both parties run (``hxmlops_stages.contract``).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

SCHEMA_MAJOR = "1"
ROLES = ("owner", "vendor", "acceptor", "server")
TOP = ("schema_version", "id", "version", *ROLES, "contract", "domains")
# What a domain may say for itself, by the part it has in the workflow; nested names are the keys of a mapping.
PARTS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "owner": {"data": None, "release": ("valid_days",)},
    "vendor": {
        "train": None,
        "parameters": None,
        "seed": None,
        "holdout_share": None,
        "time_limit_s": None,
        "memory_limit_gb": None,
        "intended_use": None,
        "valid_days": None,
    },
    "acceptor": {
        "thresholds": None,
        "latency_ms_p95": None,
        "format_policy": ("allow", "allow_pickles"),
        "energy_budget_j": None,
        "valid_days": None,
    },
    "server": {"serving": ("smoke_rows", "latency_ms_p95"), "approval": ("valid_days",)},
}
REQUIRED = {
    "owner": ("data",),
    "vendor": ("train", "intended_use"),
    "acceptor": ("thresholds", "energy_budget_j"),
    "server": (),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "owner": {"release": {"valid_days": 90}},
    "vendor": {
        "parameters": {},
        "seed": 0,
        "holdout_share": 0.25,
        "time_limit_s": 3600,
        "memory_limit_gb": 8,
        "valid_days": 90,
    },
    "acceptor": {
        "latency_ms_p95": None,
        "format_policy": {"allow": ["onnx"], "allow_pickles": []},
        "valid_days": 30,
    },
    "server": {"serving": {"smoke_rows": 50, "latency_ms_p95": 50}, "approval": {"valid_days": 30}},
}
PATHS = ("data", "train")


class WorkflowError(Exception):
    """The workflow file is wrong; the text is one line: file, place, what to write instead."""


def load(path: str | Path) -> dict[str, Any]:
    """Read a workflow file; answer it with absolute paths and defaults filled in."""
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkflowError(f"workflow file {file}: {error.strerror}; give -e hxmlops_workflow=PATH") from None
    except UnicodeDecodeError:
        raise WorkflowError(f"workflow file {file}: not UTF-8 text") from None
    try:
        workflow = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise WorkflowError(f"workflow file {file}{place}: not YAML ({getattr(error, 'problem', error)})") from None
    try:
        return _checked(workflow, file.resolve().parent)
    except WorkflowError as error:
        raise WorkflowError(f"workflow file {file}: {error}") from None


def _checked(workflow: Any, folder: Path) -> dict[str, Any]:
    _mapping(workflow, "the file")
    _known(workflow, TOP, "")
    for key in TOP:
        if key not in workflow:
            raise WorkflowError(f"{key} is missing")
    version = str(workflow["schema_version"])
    if version.partition(".")[0] != SCHEMA_MAJOR:
        raise WorkflowError(f"schema_version {version} is not known here; this release reads {SCHEMA_MAJOR}.x")
    for key in ("id", "version", *ROLES):
        if not isinstance(workflow[key], str) or not workflow[key]:
            raise WorkflowError(f"{key}: write it as text in quotes")
    _mapping(workflow["contract"], "contract")
    _mapping(workflow["domains"], "domains")
    named = {workflow[role] for role in ROLES}
    _known(workflow["domains"], tuple(sorted(named)), "domains.")
    domains = {
        name: _part(part or {}, name, [role for role in ROLES if workflow[role] == name], folder)
        for name, part in workflow["domains"].items()
    }
    return {**workflow, "schema_version": version, "domains": domains}


def _part(part: Any, name: str, roles: list[str], folder: Path) -> dict[str, Any]:
    place = f"domains.{name}."
    _mapping(part, place.rstrip("."))
    allowed = {key: nested for role in roles for key, nested in PARTS[role].items()}
    _known(part, tuple(allowed), place)
    for role in roles:
        for key, default in DEFAULTS[role].items():
            if isinstance(default, dict) and key in part:
                _mapping(part[key], place + key)
        for key, nested in PARTS[role].items():
            if nested and key in part:
                _known(part[key], nested, f"{place}{key}.")
        for key in REQUIRED[role]:
            if key not in part:
                raise WorkflowError(f"{place}{key} is missing ({name} is the workflow's {role})")
    filled: dict[str, Any] = {}
    for role in roles:
        for key, default in DEFAULTS[role].items():
            filled[key] = {**default, **part.get(key, {})} if isinstance(default, dict) else default
    filled.update({key: value for key, value in part.items() if not isinstance(filled.get(key), dict)})
    for key in PATHS:
        if key in filled:
            filled[key] = str((folder / str(filled[key])).resolve())
    return filled


def _mapping(value: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise WorkflowError(f"{place} must be a mapping of keys to values")


def _known(mapping: dict[str, Any], allowed: tuple[str, ...], place: str) -> None:
    for key in mapping:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(allowed))}"
            raise WorkflowError(f"unknown key {place}{key}; {hint}")
