"""Versions on record: find, add, change, delete. Every change leaves its line in the audit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing.access import Caller
from hxmlops_sharing.database import Database
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import CHANGEABLE, Kind
from hxmlops_sharing.store import Incoming, Store
from hxmlops_sharing.tables import audit, datasets, models
from hxmlops_sharing.versions import version_key

type Version = Row[Any]


class Registry:
    """The versions of one kind. What a caller's token is not for does not exist for that caller (404)."""

    def __init__(self, kind: Kind, database: Database, store: Store) -> None:
        self.kind = kind
        self.database = database
        self.store = store

    async def find(self, identifier: int, version: str | None, caller: Caller) -> Version:
        """The version registered as `identifier`; `latest` is the newest of that one's name."""
        async with self.database.read() as connection:
            return await self._find(connection, identifier, version, caller)

    async def find_by_digest(self, sha256: str, caller: Caller) -> Version:
        """The version whose artifact has this digest, with or without `sha256:`."""
        table = self.kind.table
        sha256 = "sha256:" + sha256.removeprefix("sha256:")
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).where(table.c.sha256 == sha256).order_by(table.c.id))
            for row in rows:
                if caller.sees(row.name):
                    return row
        raise Problem(404, "not-found", f"no {self.kind.word} has the digest {sha256}")

    async def catalogue(self, filters: Mapping[str, Sequence[str]], caller: Caller) -> list[Version]:
        """Versions whose columns have one of the values given, in order of registration."""
        table = self.kind.table
        wanted = [table.c[column].in_(values) for column, values in filters.items()]
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).where(*wanted).order_by(table.c.id))
            return [row for row in rows if caller.sees(row.name)]

    async def add(
        self, metadata: Mapping[str, Any], contents: Mapping[str, Any], incoming: list[Incoming],
        caller: Caller, request_id: str,
    ) -> Version:  # fmt: skip
        """Register a version: its metadata, what its bytes are, and the bytes, finished.

        The same version with the same metadata and bytes is a retry and answers what is registered;
        with others it is refused (409). Bytes kept for a version that could not be registered are removed.
        """
        table = self.kind.table
        upload_digest = digest_of_upload(metadata, contents["sha256"])
        async with self.database.write() as connection:
            existing = await self._existing(connection, metadata)
            if existing is not None:
                now = {column: existing._mapping[column] for column in metadata}
                if upload_digest in (existing.upload_digest, digest_of_upload(now, existing.sha256)):
                    for each in incoming:
                        await each.keep()  # heals bytes that were lost
                    return existing
                differs = "metadata" if existing.sha256 == contents["sha256"] else "bytes"
                raise Problem(
                    409, "version-exists",
                    f"{existing.name} {existing.version} is registered with other {differs}; "
                    "versions are immutable: publish a new version",
                )  # fmt: skip
            kept: list[str] = []
            try:
                for each in incoming:
                    is_new = await each.keep()
                    if is_new:
                        kept.append(each.content.sha256)
                row: Version = (
                    await connection.execute(
                        insert(table).returning(table),
                        {
                            **metadata,
                            **contents,
                            "version_key": version_key(metadata["version"]),
                            "upload_digest": upload_digest,
                            "created_at": _now(),
                            "created_by": caller.client,
                        },
                    )
                ).one()
                await self._audit(connection, "upload", row, {}, caller, request_id)
                await connection.commit()
            except Exception:
                for sha256 in kept:
                    await self.store.remove(sha256)
                raise
            return row

    async def change(
        self, identifier: int, version: str | None, changes: Mapping[str, Any],
        caller: Caller, request_id: str, *, merge: bool = False,
    ) -> Version:  # fmt: skip
        """Set columns of a version; `merge` adds to objects instead of replacing them. 409 for fixed ones."""
        table = self.kind.table
        async with self.database.write() as connection:
            row = await self._find(connection, identifier, version, caller)
            if merge:
                changes = {column: row._mapping[column] | value for column, value in changes.items()}
            changes = {
                column: value
                for column, value in changes.items()
                if json.dumps(row._mapping[column]) != json.dumps(value)  # unlike ==, tells 1 from true
            }
            fixed = [column for column in changes if column not in CHANGEABLE]
            if fixed:
                raise Problem(409, "immutable", f"{', '.join(fixed)} of a version cannot change: publish a new version")
            if not changes:
                return row
            changed: Version = (
                await connection.execute(update(table).where(table.c.id == row.id).values(changes).returning(table))
            ).one()
            detail = {
                column: {"from": _for_audit(row._mapping[column]), "to": _for_audit(value)}
                for column, value in changes.items()
            }
            await self._audit(connection, "change", changed, detail, caller, request_id)
            await connection.commit()
            return changed

    async def delete(self, identifier: int, version: str, caller: Caller, request_id: str) -> Version:
        """Remove a version, and its bytes when no other version has the same."""
        table = self.kind.table
        async with self.database.write() as connection:
            row = await self._find(connection, identifier, version, caller)
            await connection.execute(delete(table).where(table.c.id == row.id))
            await self._audit(connection, "delete", row, {}, caller, request_id)
            await connection.commit()
        for column in ("sha256", "dataset_sha256", "data_model_sha256"):
            if column in row._mapping:
                await self._remove_unreferenced(row._mapping[column])
        return row

    async def _remove_unreferenced(self, sha256: str) -> None:
        """While no upload can begin to refer to the same bytes, and after the deletion is on disk."""
        async with self.database.write() as connection:
            for column in (models.c.sha256, datasets.c.dataset_sha256, datasets.c.data_model_sha256):
                if (await connection.execute(select(column).where(column == sha256).limit(1))).first():
                    return
            await self.store.remove(sha256)

    async def _existing(self, connection: AsyncConnection, metadata: Mapping[str, Any]) -> Version | None:
        table = self.kind.table
        same = and_(table.c.name == metadata["name"], table.c.version == metadata["version"])
        return (await connection.execute(select(table).where(same))).one_or_none()

    async def _find(self, connection: AsyncConnection, identifier: int, version: str | None, caller: Caller) -> Version:
        table = self.kind.table

        async def one(condition: ColumnElement[bool]) -> Version | None:
            newest_first = (table.c.version_key.desc(), table.c.id.desc())
            rows = await connection.execute(select(table).where(condition).order_by(*newest_first).limit(1))
            return rows.one_or_none()

        row = await one(table.c.id == identifier)
        if row is None or not caller.sees(row.name):
            raise Problem(404, "not-found", f"there is no {self.kind.word} {identifier}")
        if version == "latest":
            row = await one(table.c.name == row.name) or row
        elif version not in (None, row.version):
            raise Problem(404, "not-found", f"{self.kind.word} {identifier} is version {row.version}, not {version}")
        return row

    async def _audit(
        self, connection: AsyncConnection, action: str, row: Version, detail: Mapping[str, Any],
        caller: Caller, request_id: str,
    ) -> None:  # fmt: skip
        await connection.execute(
            insert(audit),
            {
                "at": _now(),
                "client": caller.client,
                "action": action,
                "kind": self.kind.word,
                "identifier": row.id,
                "name": row.name,
                "version": row.version,
                "sha256": row.sha256,
                "detail": detail,
                "request_id": request_id,
            },
        )


def digest_of_upload(metadata: Mapping[str, Any], sha256: str) -> str:
    """Digest of metadata and bytes together, to tell a retry from another upload of the same version."""
    text = json.dumps([metadata, sha256], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _for_audit(value: Any) -> Any:
    """Words as they are; objects, which may be large, by their keys and digest."""
    if not isinstance(value, dict):
        return value
    return {"keys": sorted(value), "digest": digest_of_upload(value, "")}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
