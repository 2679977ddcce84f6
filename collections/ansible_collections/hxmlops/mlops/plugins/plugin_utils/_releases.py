# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What is wanted: releases, their order, their values and the digest of each plan. Nothing here talks to a cluster."""

from __future__ import annotations

import difflib
import graphlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import (
    digest_of,
    parse_yaml,
    sha256_file,
    sha256_tree,
)

# RFC 1123 label of at most 53 characters: what Helm takes as a release's name
NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")
# of the plan's digest that a label's value (63 characters at most) has room for, beside a revision
DIGEST_LENGTH = 40
# what a Secret's value can be made as, beside a number of random characters: a private key, ECDSA P-256 in PEM
EC_P256 = "ec_p256"


class PlanError(UserError):
    """What was asked for cannot be: the text says which release, what is wrong, and what to do."""


@dataclass(frozen=True)
class SecretKey:
    """Where a Secret's value comes from the one time it is made: given by a person, fixed, or generated."""

    given: str | None = None
    default: str | None = None
    generate: int | str = 0  # that many random characters, or EC_P256


@dataclass(frozen=True)
class Secret:
    """A Secret that has to be there before its release."""

    name: str
    keys: Mapping[str, SecretKey]


@dataclass(frozen=True)
class Release:
    """One Helm release as it should be."""

    name: str
    namespace: str
    state: str = "present"  # present, absent, rolled_back
    chart: str = ""
    version: str = ""
    repo: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    revision: int = 0
    delete_data: bool = False
    given: bool = False  # a person gave values: they are checked against the chart before anything runs

    @property
    def remote(self) -> bool:
        """True for a chart that helm fetches from a registry or repository."""
        return bool(self.repo) or self.chart.startswith("oci://")

    def plan(self, charts: dict[str, str]) -> str:
        """Digest of chart and values; `charts` keeps the digests of folders and archives read before."""
        if self.remote:
            chart = f"{self.repo} {self.chart} {self.version}"
        else:
            if self.chart not in charts:
                path = Path(self.chart)
                charts[self.chart] = sha256_file(path) if path.is_file() else digest_of(sha256_tree(path))
            chart = charts[self.chart]
        return digest_of({"chart": chart, "values": self.values}).removeprefix("sha256:")[:DIGEST_LENGTH]


def parse(items: Iterable[Mapping[str, Any]], namespace: str, folder: Path) -> list[Release]:
    """Releases from the task's list, checked as a whole before anything runs. Raises PlanError.

    Relative paths of charts and values files count from `folder`.
    """
    found: dict[str, Release] = {}
    for item in items:
        release = _parse(item, namespace, folder)
        if release.name in found:
            raise PlanError(f"release {release.name} stands twice in the list: give the second one another name")
        found[release.name] = release
    for release in found.values():
        for need in release.needs:
            if need not in found:
                near = difflib.get_close_matches(need, found, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(found)}"
                raise PlanError(f"release {release.name} needs {need}, which is not in the list: {hint}")
            if release.state == "present" and found[need].state == "absent":
                raise PlanError(
                    f"release {release.name} needs {need}, which is to be absent: keep it, or drop the need"
                )
    order(found.values())
    return list(found.values())


def order(releases: Iterable[Release]) -> graphlib.TopologicalSorter[str]:
    """What comes before what: needs first, and in reverse for what is to go. Raises PlanError for a cycle."""
    wanted = list(releases)
    graph: dict[str, set[str]] = {release.name: set() for release in wanted}
    for release in wanted:
        for need in release.needs:
            if release.state == "absent":
                graph[need].add(release.name)
            else:
                graph[release.name].add(need)
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise PlanError(f"releases need each other in a circle: {' -> '.join(error.args[1])}: drop one need") from None
    return sorter


def _parse(item: Mapping[str, Any], namespace: str, folder: Path) -> Release:
    name = str(item.get("name") or "")
    if not NAME.match(name):
        raise PlanError(f"release name {name!r}: use at most 53 lower-case letters, digits and hyphens, as Helm asks")
    state = str(item.get("state") or "present")
    chart, version, repo = (str(item.get(key) or "") for key in ("chart", "version", "repo"))
    values: dict[str, Any] = dict(item.get("defaults") or {})
    if state == "present":
        chart = _chart(name, chart, version, repo, folder)
        for file in item.get("values_files") or []:
            values = merged(values, _values_file(name, folder / Path(str(file)).expanduser()))
        values = merged(values, item.get("values") or {})
    if state == "rolled_back" and int(item.get("revision") or 0) < 1:
        raise PlanError(f"release {name}: rolled_back needs the revision to go back to (helm_release_info lists them)")
    return Release(
        name=name,
        namespace=str(item.get("namespace") or namespace),
        state=state,
        chart=chart,
        version=version,
        repo=repo,
        values=values,
        needs=tuple(map(str, item.get("needs") or ())),
        secrets=tuple(_secret(name, secret) for secret in item.get("secrets") or ()),
        revision=int(item.get("revision") or 0),
        delete_data=bool(item.get("delete_data")),
        given=bool(item.get("values") or item.get("values_files")),
    )


def _chart(name: str, chart: str, version: str, repo: str, folder: Path) -> str:
    if not chart:
        raise PlanError(f"release {name}: no chart is given")
    if repo or chart.startswith("oci://"):
        if not version:
            raise PlanError(f"release {name}: chart {chart} needs a version: without one it changes by itself")
        return chart
    path = folder / Path(chart).expanduser()
    if not ((path / "Chart.yaml").is_file() or (path.is_file() and path.suffix in (".tgz", ".gz"))):
        raise PlanError(f"release {name}: no chart at {path}: it has no Chart.yaml, and is no packed chart")
    return str(path)


def _values_file(name: str, path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"release {name}: values file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PlanError(f"release {name}: values file {path} is no text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise PlanError(f"release {name}: values file {where}: {error.problem or 'no YAML'}") from None
    except yaml.YAMLError as error:
        raise PlanError(f"release {name}: values file {path}: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise PlanError(f"release {name}: values file {path} holds no mapping but a {type(content).__name__}")
    return content


def _secret(release: str, item: Mapping[str, Any]) -> Secret:
    keys = {}
    for key, source in (item.get("data") or {}).items():
        if not isinstance(source, Mapping) or not source.keys() <= {"value", "default", "generate"} or not source:
            raise PlanError(f"release {release}: Secret {item.get('name')}: {key} takes value, default or generate")
        given, default, generate = source.get("value"), source.get("default"), source.get("generate") or 0
        if generate != EC_P256 and not str(generate).isdecimal():
            where = f"release {release}: Secret {item.get('name')}"
            raise PlanError(f"{where}: {key}: generate takes a number of characters, or {EC_P256}")
        keys[str(key)] = SecretKey(
            None if given is None else str(given),
            None if default is None else str(default),
            generate if generate == EC_P256 else int(generate),
        )
    if not item.get("name") or not keys:
        raise PlanError(f"release {release}: a Secret needs a name and data")
    return Secret(str(item["name"]), keys)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two values mappings as `helm -f BELOW -f ABOVE` merges them: mappings by key, anything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        both = isinstance(value, Mapping) and isinstance(lower, Mapping)
        result[key] = merged(lower, value) if both else value  # type: ignore[arg-type]
    return result
