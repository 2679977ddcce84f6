# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""From the results of Ansible's tasks to tables; each function prints one and answers the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hxMLOps import screen
from hxMLOps.mistakes import CONFIGURATION, FAILED, OK
from hxMLOps.play import Outcome

Tell = Callable[[Outcome, list[str]], int]
WORDS = {
    "none": "unchanged",
    "install": "installed",
    "upgrade": "upgraded",
    "uninstall": "deleted",
    "recover": "recovered",
    "repair": "repaired",
    "secrets": "Secrets made",
    "wait": "ready",
    "adopt": "adopted",
}
RECOVER = "recover: true (hxmlops_recover=true)"


def _failure(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Domains whose task failed as a whole, and why; what Ansible said before any task, for no domain."""
    for host, result in outcome.results:
        if result["failed"] and not result.get("releases"):
            yield host, " ".join(str(result.get("msg") or "failed").split())


def _ended(outcome: Outcome) -> int:
    """The exit code; says what only Ansible said."""
    if outcome.code and not any(result["failed"] for _, result in outcome.results) and not outcome.interrupted:
        screen.error(" ".join(outcome.errors) or f"ansible-playbook ended with code {outcome.code}")
    return FAILED if outcome.code else OK


def _table(columns: list[str], rows: list[list[str]], states: list[str], domains: list[str]) -> None:
    """The rows in the domains' order."""
    order = sorted(range(len(rows)), key=lambda number: domains.index(rows[number][0]))
    screen.table(columns, [rows[number] for number in order], [states[number] for number in order])


def changes(outcome: Outcome, domains: list[str]) -> int:
    """What `create` and `delete` did: a row for each release."""
    return _changes(outcome, domains, "")


def foreseen(outcome: Outcome, domains: list[str]) -> int:
    """What they would do, after a run in check mode."""
    return _changes(outcome, domains, "would be ")


def _changes(outcome: Outcome, domains: list[str], would: str) -> int:
    rows, states = [], []
    for host, result in outcome.results:
        for release in result.get("releases") or []:
            failed, action = release["failed"], str(release["action"])
            reason = str(release["reason"]).replace(RECOVER, "--recover")
            word = "failed" if failed else (would if release["changed"] else "") + WORDS.get(action, action)
            revision = "" if action == "uninstall" else str(release["revision"] or "")
            rows.append([host, release["name"], word, revision, f"{release['seconds']:.1f}", reason])
            states.append("bad" if failed else "good" if release["changed"] else "")
    for host, why in _failure(outcome):
        rows.append([host, "", "failed", "", "", why])
        states.append("bad")
    if rows:
        _table(["domain", "release", "action", "revision", "seconds", "reason"], rows, states, domains)
    return _ended(outcome)


def status(outcome: Outcome, domains: list[str]) -> int:
    """How releases are."""
    rows, states = [], []
    for host, result in outcome.results:
        for release in result.get("releases") or []:
            there = release["status"] not in ("absent", "uninstalled")
            ready = ("yes" if release["ready"] else "no") if there else ""
            rows.append(
                [
                    host,
                    release["name"],
                    release["status"],
                    str(release.get("revision") or "") if there else "",
                    str(release.get("app_version") or "") if there else "",
                    ready,
                    release["reason"],
                ]
            )
            states.append({"yes": "good", "no": "bad"}.get(ready, ""))
    for host, why in _failure(outcome):
        rows.append([host, "", "failed", "", "", "", why])
        states.append("bad")
    if rows:
        _table(["domain", "release", "status", "revision", "version", "ready", "reason"], rows, states, domains)
    return _ended(outcome)


def info(outcome: Outcome, domains: list[str]) -> int:
    """What a module is, and its values: a YAML file to fill in, as it is printed."""
    _ = domains
    pages = [entry for _, result in outcome.results for entry in result.get("modules") or []]
    for entry in pages:
        print(_page(entry))
    for host, why in _failure(outcome):
        screen.error(f"{host}: {why}")
    return _ended(outcome)


def _page(entry: dict[str, Any]) -> str:
    ports = ", ".join(f"{name} {port}" for name, port in entry["ports"].items()) or "none"
    secrets = "; ".join(f"{name} ({', '.join(keys)})" for name, keys in entry["secrets"].items()) or "none"
    return "\n".join(
        [
            f"# {entry['title']} {entry['version']}: {entry['summary']}",
            f"# Release {entry['release']} in namespace {entry['namespace']}; ports: {ports}",
            f"# Needs, where the domain has them: {', '.join(entry['needs']) or 'nothing'}; Secrets: {secrets}",
            "# Its values: write those that are to differ into a file and give it with --file.",
            "",
            entry["values"].rstrip(),
        ]
    )


def connection(outcome: Outcome, domains: list[str]) -> int:
    """Whether domains can be used: a row for each, then what stands or may stand in the way."""
    wrong = dict(_failure(outcome))
    facts = {host: result for host, result in outcome.results if "row" in result}
    cells = {host: {str(key): str(value) for key, value in result["row"]} for host, result in facts.items()}
    columns = list(dict.fromkeys(key for each in cells.values() for key in each))
    seen = {host for host, _ in outcome.results}
    usable = ["no" if domain in wrong else "yes" if domain in seen else "" for domain in domains]
    rows = [
        [domain, usable[number], *(cells.get(domain, {}).get(key, "") for key in columns)]
        for number, domain in enumerate(domains)
    ]
    screen.table(["domain", "usable", *columns], rows, [{"no": "bad", "yes": "good"}.get(each, "") for each in usable])
    for domain in domains:
        for finding in facts.get(domain, {}).get("findings") or []:
            if finding["severity"] == "warning":
                screen.warning(f"{domain}: {finding['text']}")
    for domain, why in wrong.items():
        screen.error(f"{domain}: {why}")
    return CONFIGURATION if _ended(outcome) else OK
