"""`python -m hxmlops_evidence`: keys, cards and pins for people and playbooks.

Prints one JSON object to stdout; what is wrong goes to stderr in one line. Exit codes: 0 done, 2 refused, 3 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from hxmlops_evidence import keys, statements
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.trust import Trust, check_card, import_card


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        answer = options.run(options)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except BadInput as problem:
        print(problem, file=sys.stderr)
        return 3
    except OSError as problem:
        print(f"{problem.filename or 'file'}: {problem.strerror}", file=sys.stderr)
        return 3
    print(json.dumps(answer, indent=2))
    return 0


def _keys_make(options: argparse.Namespace) -> dict[str, Any]:
    made = keys.make_keys(options.folder)
    return _publish(keys.make_card(options.folder, party=options.party, domain=options.domain), options.card, made)


def _person_make(options: argparse.Namespace) -> dict[str, Any]:
    made = not (options.folder / f"{options.person}.pem").exists()
    return _publish(keys.make_person(options.folder, party=options.party, person=options.person), options.card, made)


def _card_import(options: argparse.Namespace) -> dict[str, Any]:
    card = _read_json(options.card)
    changed = import_card(options.trust, card, options.fingerprint)
    return {"changed": changed, "name": card["name"], "fingerprint": card["fingerprint"]}


def _card_show(options: argparse.Namespace) -> dict[str, Any]:
    card: dict[str, Any] = _read_json(options.file)
    check_card(card)
    return card


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    return statements.verify(
        _read_json(options.envelope),
        Trust(options.trust),
        type_=options.type,
        issuer=options.issuer,
        workflow_id=options.workflow,
        audience=options.audience,
        contract_digest=options.contract_digest,
    )


def _publish(card: keys.Card, path: Path, made: bool) -> dict[str, Any]:
    """Write a card unless it stands there already."""
    data = (json.dumps(card, indent=2) + "\n").encode()
    stale = not path.exists() or path.read_bytes() != data
    if stale:
        write_atomic(path, data)
    return {"changed": made or stale, "name": card["name"], "fingerprint": card["fingerprint"]}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path}: not JSON; ask for it again") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(3, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m hxmlops_evidence", description="Keys, cards, pins and statements.")
    things = parser.add_subparsers(required=True, metavar="WHAT")

    make = things.add_parser("keys").add_subparsers(required=True).add_parser("make", help="a domain's keys")
    make.add_argument("--folder", type=Path, required=True, help="where the private keys stay")
    make.add_argument("--party", required=True)
    make.add_argument("--domain", required=True)
    make.add_argument("--card", type=Path, required=True, help="the public card to write")
    make.set_defaults(run=_keys_make)

    person = things.add_parser("person").add_subparsers(required=True).add_parser("make", help="a person's key")
    person.add_argument("--folder", type=Path, required=True, help="where the private key stays")
    person.add_argument("--party", required=True)
    person.add_argument("--person", required=True)
    person.add_argument("--card", type=Path, required=True, help="the public card to write")
    person.set_defaults(run=_person_make)

    cards = things.add_parser("card").add_subparsers(required=True)
    pin = cards.add_parser("import", help="pin a card after its fingerprint was compared")
    pin.add_argument("--trust", type=Path, required=True, help="folder of the pins")
    pin.add_argument("--card", type=Path, required=True)
    pin.add_argument("--fingerprint", required=True, help="as its owner told it by another way")
    pin.set_defaults(run=_card_import)
    show = cards.add_parser("show", help="check a card and print it")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_card_show)

    verify = things.add_parser("verify", help="verify a signed statement and print it")
    verify.add_argument("envelope", type=Path)
    verify.add_argument("--trust", type=Path, required=True, help="folder of the pins")
    verify.add_argument("--type", choices=statements.TYPES, required=True)
    verify.add_argument("--workflow", required=True)
    verify.add_argument("--audience", required=True, help="the domain for which it must be meant")
    verify.add_argument("--issuer", help="the domain or person that must have signed")
    verify.add_argument("--contract-digest")
    verify.set_defaults(run=_verify)
    return parser


if __name__ == "__main__":
    sys.exit(main())
