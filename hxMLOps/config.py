# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The user's configuration is an Ansible inventory: ansible-playbook reads the same file, there is no second format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hxMLOps.catalogue import PROJECT
from hxMLOps.mistakes import ConfigurationMistake, Mistake, nearest

DEFAULT_PATH = "~/.config/hxmlops/inventory.yml"
DEFAULT_DOMAIN = "hxmlops_default_domain"
ALL = "all"
# kind of a domain: its group in the inventory, and what its party is called where nobody says otherwise
KINDS = {
    "software-vendor": ("software_vendors", "vendor"),
    "mno-staging": ("mno_staging", "operator"),
    "mno-production": ("mno_production", "operator"),
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HEADER = """\
---
# The domains of HX-MLOps, an Ansible inventory: `ansible-playbook -i {path} ...` reads it as it is.
# Written by `python -m hxMLOps init new_config`; what a domain is made of, and everything else that playbooks take,
# may be added here by hand (hxmlops_modules, hxmlops_image_registry, hxmlops_helm_binary_path).
"""


@dataclass(frozen=True)
class Domain:
    """A domain of the inventory: its name, its groups, and its variables as they are written there."""

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return next((kind for kind, (group, _) in KINDS.items() if group in self.groups), "")


@dataclass(frozen=True)
class Config:
    """An inventory as the command line needs it."""

    path: Path
    domains: dict[str, Domain] = field(default_factory=dict)
    default: str | None = None

    def chosen(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The domains that a command is for; () means all of them. Raises Mistake where it is not clear.

        Those asked for (``all`` for all), else the default domain, else the only one.
        """
        if ALL in asked:
            return ()
        for name in asked:
            if name not in self.domains:
                raise Mistake(f"there is no domain {name} in {self.path}: {nearest(name, self.domains)}")
        if asked:
            return tuple(dict.fromkeys(asked))
        if self.default:
            if self.default not in self.domains:
                raise ConfigurationMistake(
                    f"{DEFAULT_DOMAIN} of {self.path} is {self.default}, which is none of its domains: choose another "
                    f"with init set_default_domain ({', '.join(self.domains)})"
                )
            return (self.default,)
        if len(self.domains) == 1:
            return tuple(self.domains)
        raise Mistake(
            f"which domain? Give --domain NAME ({', '.join(self.domains)}), or --domain all, or choose one for good "
            "with init set_default_domain"
        )


def path_of(given: Path | None) -> Path:
    """Where the configuration is, absolute: the path given (by --config or HXMLOPS_CONFIG), else the user's own."""
    return (given or Path(DEFAULT_PATH)).expanduser().absolute()


def read(given: Path | None) -> Config:
    """The configuration. Raises ConfigurationMistake when there is none or it is no inventory with domains."""
    path = path_of(given)
    if not path.exists():
        raise ConfigurationMistake(
            f"there is no configuration at {path}: make one with `python -m hxMLOps init new_config`, or name another "
            "inventory with --config"
        )
    document = _yaml_inventory(path)
    try:
        domains = _from_yaml(document) if document is not None else _from_ansible(path)
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationMistake(f"{path} is no inventory: its groups are not of the usual form") from None
    if not domains:
        raise ConfigurationMistake(f"the inventory {path} has no hosts: each domain is one")
    default = next((each.variables.get(DEFAULT_DOMAIN) for each in domains.values()), None)
    return Config(path, domains, str(default) if default else None)


def default_of(path: Path) -> str | None:
    """The default domain of a configuration, if there is one, and one that can be read."""
    try:
        return read(path).default
    except ConfigurationMistake:
        return None


def _yaml_inventory(path: Path) -> dict[str, Any] | None:
    """The groups in a YAML inventory file; None for what only Ansible can read: folders, INI files, plugins."""
    if not path.is_file() or path.suffix not in (".yml", ".yaml") or os.access(path, os.X_OK):
        return None
    if any((path.parent / folder).is_dir() for folder in ("group_vars", "host_vars")):
        return None
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationMistake(f"{path}: {error.strerror}") from None
    except yaml.constructor.ConstructorError:
        return None  # !vault and its like
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationMistake(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not all(isinstance(group or {}, dict) for group in document.values()):
        return None
    return document


def _from_yaml(document: Mapping[str, Any]) -> dict[str, Domain]:
    groups: dict[str, list[str]] = {}
    variables: dict[str, dict[str, Any]] = {}

    def walk(name: str, group: Mapping[str, Any] | None, above: tuple[str, ...], inherited: Mapping[str, Any]) -> None:
        body = group or {}
        within = {**inherited, **(body.get("vars") or {})}
        for host, own in (body.get("hosts") or {}).items():
            groups.setdefault(str(host), []).extend((*above, name))
            variables.setdefault(str(host), {}).update({**within, **(own or {})})
        for child, inner in (body.get("children") or {}).items():
            walk(str(child), inner, (*above, name), within)

    top = dict((document.get(ALL) or {}).get("vars") or {})
    for name, group in document.items():
        walk(str(name), group, (), top)
    return {name: Domain(name, tuple(groups[name]), variables[name]) for name in groups}


def _from_ansible(path: Path) -> dict[str, Domain]:
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list"]
    settings = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    try:
        # {"__ansible_unsafe": "text"} is a text from elsewhere
        listed = json.loads(done.stdout, object_hook=lambda entry: entry.get("__ansible_unsafe", entry))
    except ValueError:
        listed = {}
    groups: dict[str, list[str]] = {}
    for name, group in listed.items():
        for host in group.get("hosts") or []:
            groups.setdefault(host, []).append(name)
    if not groups:
        told = " ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise ConfigurationMistake(f"{path} is no inventory with hosts: {told or 'each domain is one'}")
    variables = listed.get("_meta", {}).get("hostvars", {})
    domains = [Domain(host, tuple(groups[host]), variables.get(host, {})) for host in sorted(groups)]
    return {domain.name: domain for domain in sorted(domains, key=lambda each: _rank(each.kind))}


def _rank(kind: str) -> int:
    """Vendors first, then staging, then production, as a workflow runs."""
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


# -- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewDomain:
    """A domain as it is to be written."""

    name: str
    context: str
    kind: str
    party: str
    location: str
    namespace: str


def a_name(text: str) -> str:
    """A name for a domain or a namespace. Raises Mistake."""
    if not _NAME.fullmatch(text) or text in (ALL, "localhost"):
        raise Mistake(
            f"{text!r} is no name for a domain or a namespace: use 1 to 63 lower-case letters, digits and hyphens, "
            "such as mno-staging"
        )
    return text


def a_kind(text: str) -> str:
    """A kind of domain. Raises Mistake."""
    if text not in KINDS:
        raise Mistake(f"there is no kind {text}: {nearest(text, KINDS)}")
    return text


def a_location(text: str) -> str:
    """A country's two letters, capitals. Raises Mistake."""
    if not re.fullmatch(r"[A-Za-z]{2}", text):
        raise Mistake(f"{text!r} is no location: give the country's two letters (ISO 3166), such as ES")
    return text.upper()


def inventory(path: Path, kubeconfig: str, domains: Sequence[NewDomain], default: str | None) -> str:
    """The text of an inventory of these domains."""
    variables: dict[str, Any] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "hxmlops_runtime": "kubernetes",
        "hxmlops_kubeconfig": kubeconfig,
        **({DEFAULT_DOMAIN: default} if default else {}),
    }
    children: dict[str, Any] = {}
    for domain in domains:
        children.setdefault(KINDS[domain.kind][0], {"hosts": {}})["hosts"][domain.name] = {
            "hxmlops_context": domain.context,
            "hxmlops_namespace": domain.namespace,
            "hxmlops_party": domain.party,
            "hxmlops_location": domain.location,
        }
    body = {ALL: {"vars": variables, "children": children}}
    return _HEADER.format(path=path) + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=110)


def with_default(text: str, domain: str) -> str:
    """The text of an inventory with another default domain; comments and all else stay. Raises ConfigurationMistake."""
    line = f"{DEFAULT_DOMAIN}: {domain}"
    wanted = yaml.safe_load(text)
    wanted.setdefault(ALL, {}).setdefault("vars", {})[DEFAULT_DOMAIN] = domain
    changed, count = re.subn(rf"(?m)^(\s+){DEFAULT_DOMAIN}:.*$", rf"\g<1>{line}", text, count=1)
    if not count:
        changed = re.sub(
            r"(?m)^all:[ \t]*\n(?:[ \t]+[^\n]*\n)*?([ \t]+)vars:[ \t]*\n([ \t]+)", rf"\g<0>{line}\n\2", text
        )
    try:
        right = yaml.safe_load(changed) == wanted
    except yaml.YAMLError:
        right = False
    if not right:
        raise ConfigurationMistake(f"set `{line}` for all hosts by hand: the file is not as new_config writes it")
    return changed


def same(path: Path, text: str) -> bool:
    """True when the file says the same as the text, comments apart."""
    try:
        return path.is_file() and bool(yaml.safe_load(path.read_text(encoding="utf-8")) == yaml.safe_load(text))
    except (OSError, yaml.YAMLError):
        return False


def write(path: Path, text: str) -> None:
    """Write the configuration for its owner only, in one step. A file that was there stays beside it as NAME~."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        if path.exists():
            path.replace(path.with_name(f"{path.name}~"))
        Path(name).replace(path)
    except OSError as error:
        raise ConfigurationMistake(f"cannot write {path}: {error.strerror}") from None


# -- the kubeconfig --------------------------------------------------------------------------------------------------


def kubeconfig_of(given: str | None) -> str:
    """The kubeconfig, or several joined by ``:``, absolute: the one given, else KUBECONFIG, else kubectl's own."""
    text = given or os.environ.get("KUBECONFIG") or "~/.kube/config"
    return os.pathsep.join(str(Path(part).expanduser().absolute()) for part in text.split(os.pathsep) if part)


def contexts(kubeconfig: str) -> dict[str, str]:
    """The contexts of a kubeconfig with their API server's address. Raises ConfigurationMistake."""
    sys.path.append(str(PROJECT / "collections"))  # the collection reads kubeconfigs already
    from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
    from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import load

    try:
        merged, _ = load(kubeconfig)
    except UserError as error:
        raise ConfigurationMistake(str(error)) from None
    found = {
        str(name): str((merged["clusters"].get(context.get("cluster")) or {}).get("server") or "")
        for name, context in merged["contexts"].items()
    }
    if not found:
        raise ConfigurationMistake(f"{kubeconfig} has no contexts: give access to a cluster first")
    return dict(sorted(found.items(), key=lambda item: (_rank(kind_of(item[0])), item[0])))


def kind_of(context: str) -> str:
    """The kind that a context's name speaks of, or ''."""
    words = {"production": "mno-production", "staging": "mno-staging", "vendor": "software-vendor"}
    return next((kind for word, kind in words.items() if word in context.lower()), "")


def name_of(context: str) -> str:
    """A domain's name made from a context's: kind's prefix off, other letters hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", context.lower().removeprefix("kind-")).strip("-")[:63].strip("-")
