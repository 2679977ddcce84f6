"""The commands `collect`, `backup`, `restore` and `audit`: for the database and store of the settings."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hxmlops_sharing.access_commands import CommandError, Commands

SETTINGS = "Database and store are those of the server's settings: HXMLOPS_SHARING_DATABASE, _STORE, … (serve --help)."


def add_commands(commands: Commands) -> None:
    """Each sets `run`, which gives what is to be printed. CommandError or OSError when it cannot."""
    collect = commands.add_parser(
        "collect", help="remove what nothing refers to any more", description=f"Collect garbage now. {SETTINGS}"
    )
    collect.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    collect.add_argument(
        "--settle-minutes", type=_minutes, default=60.0,
        help="how long files stay in the store once nothing refers to them, for downloads under way; default 60",
    )  # fmt: skip
    collect.set_defaults(run=_collect)
    backup = commands.add_parser(
        "backup", help="copy database and store to a folder", description=f"Bring a backup up to date. {SETTINGS}"
    )
    backup.add_argument("--out", type=Path, required=True, help="folder; what it has already is not copied again")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser(
        "restore",
        help="fill an empty database and store from a backup",
        description=f"Fill an empty database and store, of the same kinds or others. {SETTINGS}",
    )
    restore.add_argument("--from", dest="folder", type=Path, required=True, help="folder that `backup` has filled")
    restore.set_defaults(run=_restore)
    actions = commands.add_parser("audit", help="verify or export the audit").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    verify = actions.add_parser(
        "verify",
        help="compute the chain again; exit code 1 names the first line that is not as it was",
        description=f"Compute the audit's chain again. {SETTINGS}",
    )
    verify.add_argument("--file", type=Path, help="an export, instead of the database")
    verify.add_argument("--receipt", type=Path, action="append", default=[], help="its line must be in the chain")
    verify.set_defaults(run=_verify)
    export = actions.add_parser(
        "export", help="write all lines as JSON lines", description=f"Write all lines as JSON lines. {SETTINGS}"
    )
    export.add_argument("--out", required=True, help="file (0600), or - for standard output")
    export.set_defaults(run=_export)


class Broken(CommandError):
    """A chain that was altered, or a receipt that is not in it."""

    exit_code = 1


def _collect(options: argparse.Namespace) -> str:
    from hxmlops_sharing.collect import collect

    async def work(database: Any, store: Any, settings: Any) -> str:
        collected = await collect(
            database,
            store,
            grace_days=settings.grace_days,
            settle_s=options.settle_minutes * 60,
            dry_run=options.dry_run,
        )
        return collected.table()

    return _with_parts(work)


def _backup(options: argparse.Namespace) -> str:
    from hxmlops_sharing.backup import backup

    return _with_parts(lambda database, store, _: backup(database, store, options.out, _Progress()))


def _restore(options: argparse.Namespace) -> str:
    from hxmlops_sharing.backup import restore

    return _with_parts(lambda database, store, _: restore(database, store, options.folder, _Progress()))


def _verify(options: argparse.Namespace) -> str:
    from hxmlops_sharing import audit

    receipts = {path: _entry_of(path) for path in options.receipt}

    async def work(database: Any) -> str:
        async with database.read(snapshot=True) as connection:
            return await _judge(audit.entries(connection), receipts)

    if options.file:
        with options.file.open("rb") as file:
            return asyncio.run(_judge(_parsed(options.file, file), receipts))
    return _with_database(work)


def _export(options: argparse.Namespace) -> str:
    from hxmlops_evidence.digests import canonical
    from hxmlops_evidence.files import writing
    from hxmlops_sharing import audit

    async def write(database: Any, out: Any) -> int:
        count = 0
        async with database.read(snapshot=True) as connection:
            async for row in audit.entries(connection):
                out.write(canonical(dict(row)) + b"\n")
                count += 1
        return count

    if options.out == "-":
        _with_database(lambda database: write(database, sys.stdout.buffer))
        sys.stdout.buffer.flush()
        return ""
    path = Path(options.out)
    with writing(path) as file:
        count = _with_database(lambda database: write(database, file))
    return f"{count} lines in {path}"


async def _judge(rows: AsyncIterator[Mapping[str, Any]], receipts: Mapping[Path, tuple[int, str]]) -> str:
    """The verdict on lines and on receipts of some of them. Broken."""
    from hxmlops_sharing.audit import Chain

    chain = Chain()
    wanted = dict(receipts)
    async for row in rows:
        chain.add(row)
        if chain.problem:
            raise Broken(f"the audit is broken: {chain.problem}")
        wanted = {path: entry for path, entry in wanted.items() if entry != (row["id"], row["digest"])}
    for path, (number, digest) in wanted.items():
        raise Broken(f"receipt {path}: the audit has no line {number} with the digest {digest}")
    verdict = chain.verdict()
    said = "".join(f"\n{path}: line {number} is in the chain" for path, (number, _) in receipts.items())
    return f"{verdict.entries} lines, each as it was written; head {verdict.head.digest}{said}"


async def _parsed(path: Path, lines: Iterable[bytes]) -> AsyncIterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not {"id", "previous", "digest"} <= set(row):
                raise ValueError("no line of an audit")
        except ValueError:
            raise Broken(f"{path}: line {number} is not a line of an audit") from None
        yield row


def _entry_of(path: Path) -> tuple[int, str]:
    """Number and digest of the line that a receipt is about; its signature is for `receipt verify`."""
    import base64

    try:
        entry = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))["audit"]
        return int(entry["id"]), str(entry["digest"])
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{path}: not a receipt; ask for it again") from None


def _with_parts[T](work: Callable[[Any, Any, Any], Awaitable[T]]) -> T:
    """Do something with the open database and store of the settings. CommandError in one line."""

    async def run() -> T:
        from hxmlops_sharing.service import make_store

        async with _database() as (database, settings):
            store = make_store(settings)
            try:
                await store.open()
                return await work(database, store, settings)
            finally:
                await store.close()

    return _run(run)


def _with_database[T](work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _database() as (database, _):
            return await work(database)

    return _run(run)


@contextlib.asynccontextmanager
async def _database() -> AsyncIterator[tuple[Any, Any]]:
    from hxmlops_sharing.database import Database
    from hxmlops_sharing.settings import ENVIRONMENT, FILE, read_settings

    # what a server needs to be told of its clients, these commands do not
    given: dict[str, Any] = {"auth": "none", "auth_none_beyond_loopback": True}
    if ENVIRONMENT + "KIND" not in os.environ and FILE not in os.environ:
        given["kind"] = "model"
    settings = read_settings(**given)
    database = Database(settings)
    try:
        await database.open()
        yield database, settings
    finally:
        await database.close()


def _run[T](run: Callable[[], Awaitable[T]]) -> T:
    from hxmlops_sharing.backup import BackupError
    from hxmlops_sharing.database import DatabaseError, DatabaseUnavailable
    from hxmlops_sharing.settings import SettingsError
    from hxmlops_sharing.store import StoreError, StoreUnavailable

    async def work() -> T:
        return await run()

    os.umask(0o077)
    try:
        return asyncio.run(work())
    except (BackupError, DatabaseError, SettingsError, StoreError) as error:
        raise CommandError(str(error)) from None
    except DatabaseUnavailable as error:
        raise CommandError(f"the database went away ({error}): start the same again when it is back") from None
    except StoreUnavailable as error:
        raise CommandError(f"the store went away ({error}): start the same again when it is back") from None
    except KeyboardInterrupt:
        raise CommandError("interrupted: start the same again to go on") from None


class _Progress:
    """Lines on stderr, one a second at most."""

    def __init__(self) -> None:
        self._said_at = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() - self._said_at >= 1:
            self._said_at = time.monotonic()
            print(line, file=sys.stderr, flush=True)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 <= minutes <= 525_600:
        raise argparse.ArgumentTypeError("from 0 to 525600")
    return minutes
