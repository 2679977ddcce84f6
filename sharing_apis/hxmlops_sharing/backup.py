"""Backup of a database and its store to a folder, and restore of a backup to an empty database and store of any kind.

    FOLDER/objects/ab/abcdef…        bytes by their SHA-256, copied once
    FOLDER/tables/models-0123….jsonl rows as JSON lines, all tables from one snapshot, named by digest
    FOLDER/manifest.json             what belongs to the backup: digests, counts, the audit's head; written last

A backup that is interrupted leaves the one before it whole, and the next goes on where it ended. A restore makes rows
visible by one transaction at its end; one that is interrupted goes on when it is started again.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_evidence.files import make_private_folder, write_private, writing
from hxmlops_sharing.audit import Chain, head, verify
from hxmlops_sharing.database import Database
from hxmlops_sharing.migrations import HEAD
from hxmlops_sharing.store import BLOCK, Segment, Store, Writer
from hxmlops_sharing.tables import aliases, audit, datasets, garbage, grants, models, objects, secrets, uploads
from hxmlops_sharing.times import now

FORMAT = 1
TABLES = (models, datasets, objects, aliases, grants, audit)
"""Unfinished uploads, garbage and the keys of sessions are not for another day."""
BATCH = 500
MANIFEST = "manifest.json"
RESTORE = "restore"

type Progress = Callable[[str], None]


class BackupError(Exception):
    """No backup, or none that can be restored here: one line with what to do."""


async def backup(database: Database, store: Store, folder: Path, progress: Progress) -> str:
    """Bring the folder up to date; gives a summary. BackupError; DatabaseUnavailable, OSError, StoreUnavailable."""
    make_private_folder(folder)
    with _alone(folder):
        tables, chain = await _dump(database, folder)
        verdict = chain.verdict()
        copied = await _copy_objects(database, store, folder, folder / "tables" / tables["objects"]["file"], progress)
        manifest = {
            "format": FORMAT,
            "made_at": now(),
            "schema": HEAD,
            "tables": tables,
            "audit": {"entries": verdict.entries, "head": verdict.head.digest},
        }
        write_private(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        removed = _prune(folder, manifest)
    if verdict.problem:
        raise BackupError(
            f"{folder} is complete, but it cannot be restored: audit {verdict.problem}: "
            "keep this database and the backup before this one, and find out who changed it"
        )
    counts = ", ".join(f"{tables[table.name]['rows']} {table.name}" for table in TABLES if table is not grants)
    return f"{folder}: {counts}; {copied} copied now, {removed} removed that were no more; audit {verdict.head.digest}"


async def restore(database: Database, store: Store, folder: Path, progress: Progress) -> str:
    """Fill an empty database and store; gives a summary. Errors as of `backup`."""
    manifest, mark = _read_manifest(folder)
    with _alone(folder):
        progress("checking the backup's tables")
        await anyio.to_thread.run_sync(_check_tables, folder, manifest)
        await _begin(database, store, mark)
        await _restore_objects(database, store, folder, manifest, progress)
        async with database.write() as connection:
            await _check_empty(connection, mark)
            for table in TABLES:
                if table is not objects:
                    progress(f"restoring {manifest['tables'][table.name]['rows']} {table.name}")
                    for rows in itertools.batched(_rows(folder, manifest, table), BATCH):
                        await connection.execute(insert(table), list(rows))
            await _check_references(connection)
            verdict = await verify(connection)
            if verdict.problem or verdict.head.digest != manifest["audit"]["head"]:
                raise BackupError(f"the audit did not arrive as it was: {verdict.problem or 'another head'}: try again")
            await _set_sequences(connection, database.dialect)
            await connection.execute(secrets.delete().where(secrets.c.purpose == RESTORE))
            await connection.commit()
    counts = ", ".join(f"{manifest['tables'][table.name]['rows']} {table.name}" for table in TABLES)
    return f"restored {counts}; audit {verdict.head.digest}"


# Backup


async def _dump(database: Database, folder: Path) -> tuple[dict[str, dict[str, Any]], Chain]:
    """Every table as it was at one moment, and its audit's chain computed again."""
    chain = Chain()
    tables = {}
    async with database.read(snapshot=True) as connection:
        await head(connection)  # the moment
        for table in TABLES:
            temporary = folder / "tables" / f"{table.name}.jsonl"
            make_private_folder(temporary.parent)
            digest, count = hashlib.sha256(), 0
            with writing(temporary) as file:
                order = table.primary_key.columns.values()[0]
                result = await connection.stream(select(table).order_by(order))
                async for rows in result.mappings().partitions(BATCH):
                    if table is audit:
                        await anyio.to_thread.run_sync(_add, chain, [dict(row) for row in rows])
                    lines = b"".join(json.dumps(dict(row), ensure_ascii=False).encode() + b"\n" for row in rows)
                    file.write(lines)
                    digest.update(lines)
                    count += len(rows)
            name = f"{table.name}-{digest.hexdigest()[:16]}.jsonl"
            temporary.rename(folder / "tables" / name)
            tables[table.name] = {"file": name, "rows": count, "sha256": f"sha256:{digest.hexdigest()}"}
    return tables, chain


def _add(chain: Chain, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        chain.add(row)


async def _copy_objects(database: Database, store: Store, folder: Path, table: Path, progress: Progress) -> int:
    """Copy what is not there yet; how many."""
    copied = 0
    for number, row in enumerate(_lines(table), 1):
        path = _place(folder, row["sha256"])
        if not (path.exists() and path.stat().st_size == row["size"]):
            progress(f"object {number}: {row['size']} bytes")
            await _copy(database, store, row, path)
            copied += 1
    return copied


async def _copy(database: Database, store: Store, row: Mapping[str, Any], path: Path) -> None:
    make_private_folder(path.parent)
    for segments in (row["segments"], await _segments_now(database, row["sha256"])):
        try:
            with writing(path) as file:
                digest = hashlib.sha256()
                async for block in _object_bytes(store, segments):
                    await anyio.to_thread.run_sync(_write, file.write, digest.update, block)
                _check_digest(digest.hexdigest(), row["sha256"])
            return
        except (EOFError, FileNotFoundError, _Differs):
            continue  # it may have been replaced since the snapshot
    raise BackupError(
        f"{row['sha256']} is not in the store as it was published: if it was collected meanwhile start again, "
        "else publish the same bytes once more, which heals them"
    )


class _Differs(Exception):
    """Bytes are not those of the digest."""


def _check_digest(found: str, expected: str) -> None:
    if f"sha256:{found}" != expected:
        raise _Differs


async def _segments_now(database: Database, sha256: str) -> list[list[Any]]:
    async with database.read() as connection:
        return list(await connection.scalar(select(objects.c.segments).where(objects.c.sha256 == sha256)) or [])


async def _object_bytes(store: Store, segments: Sequence[Sequence[Any]]) -> AsyncIterator[bytes]:
    for location, size in segments:
        async for block in store.read(location, 0, size):
            yield block


def _write(write: Callable[[bytes], object], update: Callable[[bytes], object], block: bytes) -> None:
    write(block)
    update(block)


def _prune(folder: Path, manifest: Mapping[str, Any]) -> int:
    """Remove what does not belong to the backup any more; how many objects."""
    named = {entry["file"] for entry in manifest["tables"].values()}
    for path in (folder / "tables").iterdir():
        if path.name not in named:
            path.unlink()
    wanted = map(_hexadecimal, _lines(folder / "tables" / manifest["tables"]["objects"]["file"]))  # sorted
    there = (path for each in sorted((folder / "objects").glob("*")) for path in sorted(each.iterdir()))
    removed, next_ = 0, next(wanted, "~")
    for path in there:
        while next_ < path.name:
            next_ = next(wanted, "~")
        if path.name != next_:
            path.unlink()
            removed += 1
    return removed


# Restore


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest and its digest (hexadecimal)."""
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(data)
        known = manifest["format"] == FORMAT and set(manifest["tables"]) == {table.name for table in TABLES}
    except FileNotFoundError:
        raise BackupError(f"{folder} has no {MANIFEST}: name a folder that `backup` has filled") from None
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{folder / MANIFEST} is damaged: take another copy of this backup") from None
    if not known or manifest["schema"] != HEAD:
        raise BackupError(
            f"{folder} has schema {manifest.get('schema')}, this program {HEAD}: restore with the version that made it"
        )
    return manifest, hashlib.sha256(data).hexdigest()


def _check_tables(folder: Path, manifest: Mapping[str, Any]) -> None:
    for name, entry in manifest["tables"].items():
        path = folder / "tables" / Path(entry["file"]).name
        try:
            with path.open("rb") as file:
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except FileNotFoundError:
            found = ""
        if found != entry["sha256"]:
            raise BackupError(f"{path}: table {name} is missing or altered: take another copy of this backup")
    chain = Chain()
    for row in _lines(folder / "tables" / manifest["tables"]["audit"]["file"]):
        chain.add(row)
    verdict = chain.verdict()
    if verdict.problem or verdict.head.digest != manifest["audit"]["head"]:
        raise BackupError(
            f"the backup's audit is not a whole chain ({verdict.problem or 'another head'}): take an earlier backup"
        )


async def _begin(database: Database, store: Store, mark: str) -> None:
    """Note that this backup is being restored here, where there must be nothing, or a part of it."""
    async with database.write() as connection:
        if await _check_empty(connection, mark):
            return
        async for segment in store.list(older_than_s=0):
            raise BackupError(f"the store has files ({segment.location}): name an empty one")
        await connection.execute(insert(secrets), {"purpose": RESTORE, "secret": mark})
        await connection.commit()


async def _check_empty(connection: AsyncConnection, mark: str) -> bool:
    """Whether a restore of this backup has begun. BackupError for a database that has anything else."""
    begun = await connection.scalar(select(secrets.c.secret).where(secrets.c.purpose == RESTORE))
    if begun not in (None, mark):
        raise BackupError("the restore of another backup was begun here: finish that, or name an empty database")
    for table in (*TABLES, uploads, garbage):
        if (table is not objects or begun is None) and await connection.scalar(
            select(func.count()).select_from(select(table.primary_key.columns.values()[0]).limit(1).subquery())
        ):
            raise BackupError(f"the database has {table.name}: name an empty one")
    return begun is not None


async def _restore_objects(
    database: Database, store: Store, folder: Path, manifest: Mapping[str, Any], progress: Progress
) -> None:
    """Bring the objects to the store, each on record as soon as it is there."""
    count = manifest["tables"]["objects"]["rows"]
    for number, row in enumerate(_rows(folder, manifest, objects), 1):
        if await _is_there(database, store, row):
            continue
        progress(f"object {number} of {count}: {row['size']} bytes")
        writer = store.writer()
        try:
            segment = await _upload(writer, _place(folder, row["sha256"]), row["sha256"])
            async with database.write() as connection:
                await connection.execute(objects.delete().where(objects.c.sha256 == row["sha256"]))
                await connection.execute(insert(objects), row | {"segments": [[segment.location, segment.size]]})
                writer.keep()
                await connection.commit()
        finally:
            await writer.discard()


async def _is_there(database: Database, store: Store, row: Mapping[str, Any]) -> bool:
    segments = await _segments_now(database, row["sha256"])
    return bool(segments) and all([await store.size(location) == size for location, size in segments])


async def _upload(writer: Writer, path: Path, sha256: str) -> Segment:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := await anyio.to_thread.run_sync(file.read, BLOCK):
                await anyio.to_thread.run_sync(digest.update, block)
                await writer.write(block)
            _check_digest(digest.hexdigest(), sha256)
    except (FileNotFoundError, _Differs):
        raise BackupError(f"{path} is missing or altered: take another copy of this backup") from None
    return await writer.finish()


async def _check_references(connection: AsyncConnection) -> None:
    for column in (models.c.sha256, datasets.c.dataset_sha256, datasets.c.data_model_sha256):
        lost = select(column).where(column.not_in(select(objects.c.sha256))).limit(1)
        digest = await connection.scalar(lost)
        if digest:
            raise BackupError(f"the backup lacks {digest}: take another copy, or an earlier backup")


async def _set_sequences(connection: AsyncConnection, dialect: str) -> None:
    """Go on with identifiers behind the highest ever given: one of a version that is gone is not given again."""
    for table, kind in ((models, "model"), (datasets, "dataset"), (aliases, "")):
        highest = await connection.scalar(select(func.max(table.c.id))) or 0
        if kind:
            seen = select(func.max(audit.c.identifier)).where(audit.c.kind == kind)
            highest = max(highest, await connection.scalar(seen) or 0)
        if not highest:
            continue
        if dialect == "postgresql":
            set_ = text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :highest)")
            await connection.execute(set_, {"table": table.name, "highest": highest})
        else:
            values = {"table": table.name, "highest": highest}
            await connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), values)
            await connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :highest)"), values)


# Both


def _rows(folder: Path, manifest: Mapping[str, Any], table: Table) -> Iterator[dict[str, Any]]:
    return _lines(folder / "tables" / Path(manifest["tables"][table.name]["file"]).name)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _hexadecimal(row: Mapping[str, Any]) -> str:
    return str(row["sha256"]).removeprefix("sha256:")


def _place(folder: Path, sha256: str) -> Path:
    name = sha256.removeprefix("sha256:")
    return folder / "objects" / name[:2] / name


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One program at a time works with a backup."""
    lock = folder / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            lock.touch(mode=0o600)
            file = stack.enter_context(lock.open("w"))
        except OSError:
            yield  # a copy that cannot be written to
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another program works with {folder}: wait for its end") from None
        yield
