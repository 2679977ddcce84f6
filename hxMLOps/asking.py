# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What a person is asked on a terminal, and the options that say the same elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from hxMLOps import screen
from hxMLOps.config import KINDS, NewDomain, a_kind, a_location, a_name, contexts, kind_of, name_of
from hxMLOps.mistakes import ConfigurationMistake, Mistake, nearest

KEYS = ("context", "kind", "party", "location", "namespace")


def on_terminal() -> bool:
    """True when there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def new_domains(kubeconfig: str, given: Sequence[str]) -> list[NewDomain]:
    """The domains of a new configuration: as given by options, else as a person answers."""
    known = contexts(kubeconfig)
    if given:
        domains = [_from_option(text, known, kubeconfig) for text in given]
    elif on_terminal():
        domains = _asked(kubeconfig, known)
    else:
        raise Mistake(
            "there is no terminal to ask on: give each domain as --domain NAME,location=COUNTRY[,context=CONTEXT]"
            f"[,kind=KIND][,party=COMPANY][,namespace=NAMESPACE]; the contexts of {kubeconfig} are {', '.join(known)}"
        )
    names = [domain.name for domain in domains]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Mistake(f"domain {twice[0]} is given twice: names differ from domain to domain")
    return domains


def _from_option(text: str, known: dict[str, str], kubeconfig: str) -> NewDomain:
    name, *parts = [part.strip() for part in text.split(",")]
    answers: dict[str, str] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign or key not in KEYS:
            raise Mistake(f"--domain {text}: {part!r} is none of {', '.join(f'{each}=' for each in KEYS)}")
        answers[key] = value
    context = answers.get("context") or next((each for each in known if name in (each, name_of(each))), "")
    if context not in known:
        hint = nearest(context or name, known)
        raise Mistake(f"--domain {name}: {kubeconfig} has no context {context or name}: {hint}; give context=NAME")
    kind = answers.get("kind") or (name if name in KINDS else kind_of(name) or kind_of(context))
    if not kind:
        raise Mistake(f"--domain {name}: give kind=, one of {', '.join(KINDS)}")
    if "location" not in answers:
        raise Mistake(f"--domain {name}: give location=, its country's two letters (for the carbon of its energy)")
    try:
        return NewDomain(
            a_name(name),
            context,
            a_kind(kind),
            answers.get("party") or KINDS[kind][1],
            a_location(answers["location"]),
            a_name(answers.get("namespace") or name),
        )
    except Mistake as mistake:
        raise Mistake(f"--domain {text}: {mistake}") from None


def _asked(kubeconfig: str, known: dict[str, str]) -> list[NewDomain]:
    print(f"Contexts of {kubeconfig}:")
    names = list(known)
    screen.table(["", "context", "API server"], [[str(n), name, known[name]] for n, name in enumerate(names, 1)])

    def some(answer: str) -> list[str]:
        if answer.strip().lower() == "all":
            return names
        words = answer.replace(",", " ").split()
        found = [names[int(word) - 1] if word.isdigit() and 0 < int(word) <= len(names) else word for word in words]
        for word in found:
            if word not in known:
                raise Mistake(f"there is no context {word}: {nearest(word, known)}")
        if not found:
            raise Mistake("choose one at least")
        return list(dict.fromkeys(found))

    domains: list[NewDomain] = []
    for context in _again("Which of them are domains? Numbers or names", "all", some):
        print(f"\n{context}")
        name = _again("  Name of the domain", name_of(context), lambda text: _new_name(text, domains))
        guess = name if name in KINDS else kind_of(name) or kind_of(context)
        kind = _again(f"  Kind ({', '.join(KINDS)})", guess, a_kind)
        party = typer.prompt("  Party, the company it belongs to", default=KINDS[kind][1])
        location = _again("  Location, its country's two letters", "", a_location)
        namespace = _again("  Namespace", name, a_name)
        domains.append(NewDomain(name, context, kind, party, location, namespace))
    print()
    return domains


def _new_name(text: str, domains: Sequence[NewDomain]) -> str:
    if text in [domain.name for domain in domains]:
        raise Mistake(f"there is a domain {text} already")
    return a_name(text)


def _again[T](question: str, default: str, read: Callable[[str], T]) -> T:
    """Ask until the answer is right."""
    while True:
        try:
            return read(str(typer.prompt(question, default=default or None)).strip())
        except Mistake as mistake:
            print(f"  {mistake}")


def one_of(question: str, names: Sequence[str], option: str = "--default NAME", optional: bool = False) -> str:
    """One of the names, as a person answers; '' for none where that may be."""
    if not on_terminal():
        raise Mistake(f"there is no terminal to ask on: give {option} ({', '.join(names)})")
    print(", ".join(f"{number} {name}" for number, name in enumerate(names, 1)))

    def one(answer: str) -> str:
        if not answer and optional:
            return ""
        name = names[int(answer) - 1] if answer.isdigit() and 0 < int(answer) <= len(names) else answer
        if name not in names:
            raise Mistake(f"there is no {name}: {nearest(name, names)}")
        return name

    while True:
        try:
            return one(str(typer.prompt(question, default="" if optional else None, show_default=False)).strip())
        except Mistake as mistake:
            print(f"  {mistake}")


def may_replace(path: Path) -> None:
    """Raises ConfigurationMistake when a person does not want the configuration replaced, or nobody can be asked."""
    if not (on_terminal() and typer.confirm(f"There is a configuration at {path}. Replace it?")):
        raise ConfigurationMistake(
            f"there is another configuration at {path}: --force replaces it (and keeps it as {path.name}~), --config "
            "names another"
        )
