# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""From a domain's list of modules to Helm releases: each role's ``module.yml`` says what differs."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import parse_yaml, parse_yaml_all
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import merged

ROLES = Path(__file__).resolve().parents[2] / "roles"
# group of the inventory: the role that says what a domain of that kind is made of
KINDS = {
    "software_vendors": "software_vendor",
    "mno_staging": "mno_staging",
    "mno_production": "mno_production",
}
METERS = "-meters"  # what needs the node lives in a namespace of its own
ITEM = ("module", "name", "values", "values_file", "needs", "state", "secrets", "delete_data")
_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Module:
    """What a role's ``module.yml`` says, and where its chart lies."""

    name: str
    folder: Path
    data: Mapping[str, Any]

    @property
    def release(self) -> str:
        """Default name of its release."""
        return self.name.replace("_", "-")

    def namespace(self, domain: str) -> str:
        """The namespace it lives in, where the domain's is `domain`."""
        return domain + METERS if self.data.get("privileged") else domain


def known() -> list[str]:
    """Names of all modules that are installed by a chart."""
    return sorted(path.parent.name for path in ROLES.glob("*/module.yml"))


@functools.cache
def module(name: str) -> Module:
    """A module by name. Raises UserError for an unknown one."""
    folder = ROLES / name
    if not re.fullmatch(r"[a-z0-9_]+", name) or not (folder / "module.yml").is_file():
        near = difflib.get_close_matches(name.replace("-", "_"), known(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known())}"
        raise UserError(f"there is no module {name}: {hint}")
    return Module(name, folder, parse_yaml((folder / "module.yml").read_text(encoding="utf-8")))


def of_kind(groups: Iterable[str]) -> list[dict[str, Any]] | None:
    """The modules of a domain by its group in the inventory, or None where the group says nothing."""
    for group in groups:
        if group in KINDS:
            role = KINDS[group]
            defaults = parse_yaml((ROLES / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
            return list(defaults[f"{role}_modules"])
    return None


@dataclass(frozen=True)
class Place:
    """The domain in which modules are installed."""

    domain: str
    namespace: str
    location: str = ""
    registry: str = ""


def releases(
    items: Iterable[Mapping[str, Any]], place: Place, others: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The list for `helm_release`, from modules of a domain; `others` are the rest of it, which go by their names.

    Raises UserError.
    """
    entries = [(item, module(str(_checked(item)["module"]))) for item in items]
    around = [*entries, *((item, module(str(_checked(item)["module"]))) for item in others)]
    names = {chosen.name: _name(item, chosen) for item, chosen in reversed(around)}
    made = [_release(item, chosen, names, place) for item, chosen in entries]
    here = {release["name"] for release in made}
    own = {_name(item, chosen): item.get("needs") or [] for item, chosen in entries}
    for (
        release
    ) in made:  # a module's own needs only order what is in the list; a need that a person names has to be there
        release["needs"] = [need for need in release["needs"] if need in here or need in own[release["name"]]]
    return made


def _name(item: Mapping[str, Any], chosen: Module) -> str:
    return str(item.get("name") or chosen.release)


def selected(items: list[dict[str, Any]], only: str) -> list[dict[str, Any]]:
    """Those of a domain's list that are this module or bear this name; the module as it comes where none does."""
    found = [item for item in items if only in (item.get("module"), item.get("name"))]
    return found or [{"module": module(only).name}]


def _checked(item: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(item, Mapping) or not item.get("module"):
        raise UserError(f"hxmlops_modules: {item!r} names no module: write it as {{module: postgres}}")
    for key in item:
        if key not in ITEM:
            near = difflib.get_close_matches(str(key), ITEM, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(ITEM)}"
            raise UserError(f"hxmlops_modules: module {item['module']} has the unknown key {key}: {hint}")
    return item


def _release(item: Mapping[str, Any], chosen: Module, names: dict[str, str], place: Place) -> dict[str, Any]:
    name = _name(item, chosen)
    words = {known_name: known_name.replace("_", "-") for known_name in known()}
    words |= {
        **names,
        "name": name,
        "domain": place.domain,
        "namespace": place.namespace,
        "location": place.location,
    }
    defaults = filled(chosen.data.get("values") or {}, words)
    if place.registry:
        defaults = merged(defaults, {"global": {"imageRegistry": place.registry}})
    needs = [names[need] for need in chosen.data.get("needs") or [] if need in names]
    return {
        "name": name,
        "namespace": chosen.namespace(place.namespace),
        "state": item.get("state") or "present",
        "chart": str(chosen.folder / "chart"),
        "defaults": defaults,
        "values": item.get("values") or {},
        "values_files": [item["values_file"]] if item.get("values_file") else [],
        "needs": [*needs, *(need for need in item.get("needs") or [] if need not in needs)],
        "secrets": _secrets(item, filled(chosen.data.get("secrets") or [], words)),
        "delete_data": bool(item.get("delete_data")),
    }


def _secrets(item: Mapping[str, Any], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The module's Secrets, with the values that a person gives in the place of those made up."""
    given = dict(item.get("secrets") or {})
    result = []
    for secret in wanted:
        data = {
            key: {"value": given.pop(key)} if key in given else {_SOURCES[how]: what for how, what in source.items()}
            for key, source in secret["data"].items()
        }
        result.append({"name": secret["name"], "data": data})
    if given:
        keys = ", ".join(key for secret in wanted for key in secret["data"]) or "none"
        raise UserError(f"module {item['module']}: its Secrets have no {', '.join(given)}: their keys are {keys}")
    return result


_SOURCES = {"value": "default", "generate": "generate"}


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """Data with ``{word}`` replaced in its texts; a brace that holds no known word stays."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: words.get(found[1], found[0]), value)
    if isinstance(value, Mapping):
        return {filled(key, words): filled(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, words) for inner in value]
    return value


def cluster_objects(items: Iterable[Mapping[str, Any]], place: Place) -> list[dict[str, Any]]:
    """What the modules need of the whole cluster: the objects of their ``cluster/*.yml``."""
    words = {"domain": place.domain, "namespace": place.namespace, "location": place.location}
    objects = []
    for name in dict.fromkeys(str(_checked(item)["module"]) for item in items):
        for file in sorted((module(name).folder / "cluster").glob("*.yml")):
            documents = parse_yaml_all(file.read_text(encoding="utf-8"))
            objects += [filled(document, words) for document in documents if document]
    return objects


def privileged(items: Iterable[Mapping[str, Any]]) -> bool:
    """True when one of the modules needs the namespace for meters."""
    return any(module(str(_checked(item)["module"])).data.get("privileged") for item in items)
