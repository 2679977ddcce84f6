"""The commands `token`, `key` and `receipt`: who may do what, and the proof of what was handed over."""

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hxmlops_sharing.tokens import MAX_NUMBER, SCOPES, Grant, create_token, read_tokens, revoke_tokens

SOON = timedelta(days=14)
UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}  # fmt: skip

_SIZE = re.compile(r"(\d{1,19})\s*([a-zA-Z]*)", re.ASCII)

type Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class CommandError(Exception):
    """What was asked for cannot be done: one line with what to do."""


def add_commands(commands: Commands) -> None:
    """Each sets `run`, which gives what is to be printed. CommandError, TokensError or OSError when it cannot."""
    _add_token(commands.add_parser("token", help="create, list or revoke tokens"))
    _add_key(commands.add_parser("key", help="create the key that signs receipts"))
    _add_receipt(commands.add_parser("receipt", help="verify a receipt of a download"))


def _create_token(options: argparse.Namespace) -> str:
    made = create_token(
        options.tokens,
        options.out,
        client=options.client,
        scopes=options.scope,
        artifacts=options.artifact or ["*"],
        days=options.days,
        purpose=options.purpose,
        recipient=options.recipient,
        quota_bytes=options.quota,
        requests_per_minute=options.rate,
    )
    return f"{'created' if made else 'kept'}: the token of {options.client} in {options.out}"


def _list_tokens(options: argparse.Namespace) -> str:
    now = datetime.now(UTC)
    lines = [("CLIENT", "SCOPES", "ARTIFACTS", "PURPOSE", "RECIPIENT", "QUOTA", "A MINUTE", "EXPIRES")]
    lines += [
        (
            grant.client,
            ",".join(grant.scopes),
            ",".join(grant.artifacts),
            grant.purpose or "-",
            grant.recipient or "-",
            said_size(grant.quota_bytes) if grant.quota_bytes else "-",
            str(grant.requests_per_minute or "-"),
            _expiry(grant, now),
        )
        for grant in sorted(read_tokens(options.tokens), key=lambda grant: (grant.client, grant.expires))
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _expiry(grant: Grant, now: datetime) -> str:
    left = grant.expires - now
    if left <= timedelta():
        return f"{grant.expires_at} EXPIRED"
    if left <= SOON:
        return f"{grant.expires_at} SOON: {left.days} d left"
    return grant.expires_at


def _revoke_tokens(options: argparse.Namespace) -> str:
    return f"revoked: {revoke_tokens(options.tokens, client=options.client)} of {options.client}"


def _create_key(options: argparse.Namespace) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from hxmlops_evidence.errors import BadInput
    from hxmlops_evidence.files import create_private
    from hxmlops_evidence.keys import key_id, load_signing_key, public_pem

    new = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = create_private(options.out, new)
    try:
        public = load_signing_key(options.out).public_key()
    except BadInput as error:
        raise CommandError(str(error)) from None
    said = "created" if made else "kept"
    return f"{said}: the signing key in {options.out}\nfingerprint: {key_id(public)}\n{public_pem(public).rstrip()}"


def _verify_receipt(options: argparse.Namespace) -> str:
    from hxmlops_sharing.deliveries import ReceiptError, check_artifact, key_of_card, verify_receipt

    envelope = _read_json(options.receipt)
    try:
        pem = key_of_card(envelope, _read_json(options.card)) if options.card else options.key.read_text("utf-8")
        delivery = verify_receipt(envelope, pem)
        if options.file:
            check_artifact(delivery, options.file)
    except UnicodeDecodeError:
        raise CommandError(f"{options.key}: not a public key in PEM") from None
    except ReceiptError as error:
        raise CommandError(f"receipt {options.receipt}: {error}") from None
    return json.dumps(delivery, indent=2)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise CommandError(f"{path}: not JSON; ask for it again") from None


def _add_token(token: argparse.ArgumentParser) -> None:
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    each = {
        name: actions.add_parser(name, help=help_, description=help_.capitalize())
        for name, help_ in (
            ("create", "make a token for a client, unless --out has a valid one that says the same"),
            ("list", "show who has tokens, for what and until when"),
            ("revoke", "take every token from a client; the server notices by itself"),
        )
    }
    for action in each.values():
        action.add_argument("--tokens", type=Path, required=True, help="the server's tokens file (digests only)")
    for action in (each["create"], each["revoke"]):
        action.add_argument("--client", required=True, help="name of the holder, as logs and audit show it")
    create = each["create"]
    create.add_argument("--scope", action="append", choices=SCOPES, required=True, help="may be repeated")
    create.add_argument("--artifact", action="append", help="names it is for, as a glob; may be repeated; default *")
    create.add_argument("--days", type=_days, required=True, help="validity")
    create.add_argument("--purpose", default="", help="what artifacts may be used for; audit and receipts say it")
    create.add_argument("--recipient", default="", help="the party that receives; audit and receipts say it")
    create.add_argument(
        "--quota", type=size, default=0, help="bytes it may store, such as 500GiB; default: the server's"
    )
    create.add_argument("--rate", type=_rate, default=0, help="requests a minute; default: the server's")
    create.add_argument("--out", type=Path, required=True, help="file for the token (0600); it is never printed")
    each["create"].set_defaults(run=_create_token)
    each["list"].set_defaults(run=_list_tokens)
    each["revoke"].set_defaults(run=_revoke_tokens)


def _add_key(key: argparse.ArgumentParser) -> None:
    create = key.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "create",
        help="make a key, unless it is there, and print its public half",
        description="Make an ECDSA P-256 key, unless it is there, and print its public half.",
    )
    create.add_argument("--out", type=Path, required=True, help="file for the private key (0600)")
    create.set_defaults(run=_create_key)


def _add_receipt(receipt: argparse.ArgumentParser) -> None:
    verify = receipt.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "verify",
        help="check a receipt's signature and print what it says",
        description="Check a receipt's signature and print what it says, as JSON.",
    )
    verify.add_argument("--receipt", type=Path, required=True, help="as the server answered it")
    whose = verify.add_mutually_exclusive_group(required=True)
    whose.add_argument("--key", type=Path, help="the server's public key in PEM")
    whose.add_argument("--card", type=Path, help="the public card of the server's domain")
    verify.add_argument("--file", type=Path, help="the artifact, to check its digest; of a dataset its zip or folder")
    verify.set_defaults(run=_verify_receipt)


def size(text: str) -> int:
    """Bytes of a size as people write it: 500GiB, 20 MB, 1048576."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"a number of bytes, maybe with one of {', '.join(list(UNITS)[1:])}")
    return _number(int(match[1]) * UNITS[match[2]])


def said_size(number: int) -> str:
    """A size in the largest unit that says it exactly."""
    unit = max((unit for unit in UNITS if unit and number % UNITS[unit] == 0), key=UNITS.__getitem__)
    return f"{number // UNITS[unit]}{unit}"


def _rate(text: str) -> int:
    return _number(int(text))


def _number(number: int) -> int:
    if not 1 <= number <= MAX_NUMBER:
        raise argparse.ArgumentTypeError(f"from 1 to {MAX_NUMBER}")
    return number


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError("from 1 to 3650")
    return days
