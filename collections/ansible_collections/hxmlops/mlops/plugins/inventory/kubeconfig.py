# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Contexts of kubeconfig files as domains."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import DEFAULT, load

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 every text is a template

    def trust_as_template(value: str) -> str:
        return value


DOCUMENTATION = r"""
name: kubeconfig
short_description: Contexts of kubeconfig files as domains
version_added: 0.1.0
author: HX-MLOps contributors (@hxmlops)
description:
  - Makes a host of each context that a rule matches; the first rule that matches a context wins, and contexts that no
    rule matches are left out.
  - A host gets C(ansible_connection=local), the playbook's own Python, C(hxmlops_runtime=kubernetes),
    C(hxmlops_kubeconfig), C(hxmlops_context), C(hxmlops_namespace), and, where its rule has them,
    C(hxmlops_party), C(hxmlops_location) and more variables.
  - Nothing is asked of a cluster, and no credential is copied; variables name the file and the context only.
  - The name of the configuration file ends with C(kubeconfig.yml) or C(kubeconfig.yaml).
options:
  plugin:
    description: Marks the file as one of this plugin.
    type: str
    required: true
    choices: [hxmlops.mlops.kubeconfig]
  kubeconfigs:
    description:
      - Kubeconfig files, or patterns of such; relative ones count from the folder of the configuration file.
      - Every file stands for itself, so that the context C(default) of each of thirty files is a domain of its own.
        Files joined by C(:) count as one, as kubectl has it.
      - Where none are given, E(K8S_AUTH_KUBECONFIG), E(KUBECONFIG) or C(~/.kube/config).
    type: list
    elements: str
    default: []
  rules:
    description:
      - Which contexts are domains, and which. A rule without O(rules[].match), O(rules[].regex) and O(rules[].file)
        matches all.
      - Texts of a rule may be templates. They know C(context), C(cluster), C(user) and C(namespace) of the context as
        the kubeconfig has them, C(file) (the name of the file without its ending), and the named groups of
        O(rules[].regex).
    type: list
    elements: dict
    required: true
    suboptions:
      match:
        description: Pattern (C(*), C(?), C([abc])) of the context's name.
        type: str
      regex:
        description: Regular expression that the whole name of the context matches.
        type: str
      file:
        description: Pattern of the file's name, without folder and ending.
        type: str
      name:
        description: Name of the domain; that of the context by default.
        type: str
      groups:
        description:
          - Groups that the domain is in. Domains of the groups C(software_vendors), C(mno_staging) and
            C(mno_production) have modules by default.
        type: list
        elements: str
      party:
        description: The company that the domain belongs to.
        type: str
      location:
        description: Country of the domain, as an ISO 3166 code, for the carbon of its energy. Quote V('NO').
        type: str
      namespace:
        description:
          - Namespace of the domain; by default it bears the domain's name.
          - The one that the context names counts only where a rule says C("{{ namespace }}"), as tools change it in
            passing.
        type: str
      variables:
        description: More variables of the domain.
        type: dict
"""

EXAMPLES = r"""
---
# Three domains from one file, kubeconfig.yml
plugin: hxmlops.mlops.kubeconfig
kubeconfigs: [~/.kube/config]
rules:
  - match: kind-software-vendor
    name: software-vendor
    groups: [software_vendors]
    party: vendor
    location: DE
  - regex: kind-(?P<domain>mno-(?P<kind>staging|production))
    name: "{{ domain }}"
    groups: ["mno_{{ kind }}"]
    party: operator
    location: ES

---
# Thirty from a folder of files such as es-madrid-staging.yaml, whose contexts are all called "default"
plugin: hxmlops.mlops.kubeconfig
kubeconfigs: [clusters/*.yaml]
rules:
  - file: "*-staging"
    name: "{{ file }}"
    groups: [mno_staging]
    party: operator
    location: "{{ file[:2] | upper }}"
    namespace: mlops
  - name: "{{ file }}"
    groups: [mno_production]
    party: operator
    location: "{{ file[:2] | upper }}"
    namespace: mlops
    variables:
      hxmlops_image_registry: "registry.{{ inventory_hostname }}.example.net"
"""

_TEXTS = ("match", "regex", "file", "name", "party", "location", "namespace")
_KEYS = (*_TEXTS, "groups", "variables")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Rule:
    """What makes a domain of a context."""

    number: int
    keys: Mapping[str, Any]

    def matches(self, facts: Mapping[str, str]) -> dict[str, str] | None:
        """The named groups of its regular expression where it matches a context, else None."""
        for key, fact in (("match", "context"), ("file", "file")):
            if key in self.keys and not fnmatch.fnmatchcase(facts[fact], self.keys[key]):
                return None
        if "regex" not in self.keys:
            return {}
        found = re.fullmatch(self.keys["regex"], facts["context"])
        return None if found is None else {name: text or "" for name, text in found.groupdict().items()}


def rules_of(given: Any) -> list[Rule]:
    """The rules of a configuration. Raises UserError for what no rule may hold."""
    if not isinstance(given, list) or not given:
        raise UserError("rules must be a list of at least one rule, such as {match: 'kind-*'}")
    return [Rule(number, _checked(rule, f"rule {number}")) for number, rule in enumerate(given, 1)]


def _checked(rule: Any, place: str) -> dict[str, Any]:
    if not isinstance(rule, dict):
        raise UserError(f"{place} must be a mapping, such as {{match: 'kind-*', groups: [mno_staging]}}")
    _known(rule, _KEYS, place)
    for key in _TEXTS:
        if key in rule and (not isinstance(rule[key], str) or not rule[key]):
            raise UserError(f"{place}: {key} is {rule[key]!r}, but must be a text: put it in quotes")
    groups, variables = rule.get("groups", []), rule.get("variables", {})
    if not isinstance(groups, list) or not all(isinstance(group, str) and group for group in groups):
        raise UserError(f"{place}: groups must be a list of names, such as [mno_staging]")
    if not isinstance(variables, dict) or not all(isinstance(name, str) and name.isidentifier() for name in variables):
        raise UserError(f"{place}: variables must be a mapping of names (letters, digits, _) to values")
    try:
        re.compile(rule.get("regex", ""))
    except re.error as error:
        raise UserError(f"{place}: regex {rule['regex']}: {error}") from None
    return rule


def _known(mapping: Mapping[Any, Any], allowed: tuple[str, ...], place: str) -> None:
    for key in mapping:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(allowed))}"
            raise UserError(f"{place} has the unknown key {key}: {hint}")


def sources(given: list[str], folder: Path) -> list[str]:
    """Kubeconfig paths by the patterns of a configuration, absolute, each once. Raises UserError."""
    if not given:
        default = os.environ.get("K8S_AUTH_KUBECONFIG") or os.environ.get("KUBECONFIG") or DEFAULT
        return [os.pathsep.join(_absolute(part, Path.cwd()) for part in default.split(os.pathsep) if part)]
    found: list[str] = []
    for pattern in given:
        paths = [_absolute(part, folder) for part in str(pattern).split(os.pathsep) if part]
        if len(paths) == 1 and glob.has_magic(paths[0]):
            files = sorted(path for path in glob.glob(paths[0]) if Path(path).is_file())  # noqa: PTH207 - absolute
            if not files:
                raise UserError(f"kubeconfigs: no file matches {paths[0]}: put some there, or mend the pattern")
            found += files
        else:
            found.append(os.pathsep.join(paths))
    return list(dict.fromkeys(found))


def _absolute(path: str, folder: Path) -> str:
    return str(folder / Path(os.path.expandvars(path)).expanduser())


def contexts(source: str) -> Iterator[dict[str, str]]:
    """What templates may know of each context of a kubeconfig, and `source`. Raises UserError."""
    merged, _files = load(source)
    for name, context in merged["contexts"].items():
        yield {
            "context": str(name),
            "file": Path(source.split(os.pathsep)[0]).stem,
            "source": source,
            **{key: str(context.get(key) or "") for key in ("cluster", "user", "namespace")},
        }


@dataclass(frozen=True)
class Domain:
    """A host of the inventory."""

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, Any]


def domains(rules: list[Rule], given: list[str], template: Callable[[str, dict[str, str]], str]) -> list[Domain]:
    """The domains that rules make of the contexts of kubeconfigs. Raises UserError, also where there are none.

    `template` fills a text with words.
    """
    every = [facts for source in given for facts in contexts(source)]
    found: dict[str, Domain] = {}
    origins: dict[str, str] = {}
    for facts in every:
        matching = ((rule, words) for rule in rules if (words := rule.matches(facts)) is not None)
        rule, words = next(matching, (None, {}))
        if rule is None:
            continue
        origin = f"context {facts['context']} of {facts['source']}"
        domain = _domain(rule, facts, words, origin, template)
        if domain.name in found:
            raise UserError(
                f"{origin} would be a second {domain.name}, beside {origins[domain.name]}: let rules give other names"
            )
        found[domain.name], origins[domain.name] = domain, origin
    if not found:
        known = ", ".join(sorted({facts["context"] for facts in every})) or "none"
        raise UserError(f"no rule matches a context of {', '.join(given)}: the contexts are {known}")
    return list(found.values())


def _domain(
    rule: Rule,
    facts: dict[str, str],
    words: dict[str, str],
    origin: str,
    template: Callable[[str, dict[str, str]], str],
) -> Domain:
    def text(value: str, key: str) -> str:
        place = f"{origin}: {key} {value!r} of rule {rule.number}"
        try:
            filled = template(value, {**facts, **words})
        except AnsibleError as error:
            raise UserError(f"{place}: {' '.join(str(error).split())}") from None
        if not filled:
            raise UserError(f"{place} comes out empty: mend it, or the rule's pattern")
        return filled

    def own(key: str) -> str | None:
        return text(rule.keys[key], key) if key in rule.keys else None

    name = own("name") or facts["context"]
    if not _HOST.fullmatch(name):
        raise UserError(f"{origin}: {name!r} cannot name a host: give rule {rule.number} another name")
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": trust_as_template("{{ ansible_playbook_python }}"),
        "hxmlops_runtime": "kubernetes",
        "hxmlops_kubeconfig": facts["source"],
        "hxmlops_context": facts["context"],
        "hxmlops_namespace": own("namespace") or name,
        "hxmlops_party": own("party"),
        "hxmlops_location": own("location"),
    }
    given = {key: value for key, value in variables.items() if value is not None}
    groups = tuple(text(group, "groups") for group in rule.keys.get("groups", []))
    return Domain(name, groups, {**given, **rule.keys.get("variables", {})})


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """See DOCUMENTATION."""

    NAME = "hxmlops.mlops.kubeconfig"

    def verify_file(self, path: str) -> bool:
        return path.endswith(("kubeconfig.yml", "kubeconfig.yaml")) and bool(super().verify_file(path))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        try:
            _known(config, ("plugin", "kubeconfigs", "rules"), "the file")
            given = sources(self.get_option("kubeconfigs"), Path(path).parent)
            found = domains(rules_of(config.get("rules")), given, self._filled)
        except UserError as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        for domain in found:
            inventory.add_host(domain.name)
            for group in domain.groups:
                inventory.add_child(inventory.add_group(group), domain.name)
            for name, value in domain.variables.items():
                inventory.set_variable(domain.name, name, value)

    def _filled(self, text: str, words: dict[str, str]) -> str:
        self.templar.available_variables = words
        return str(self.templar.template(text))
