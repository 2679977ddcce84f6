"""Versions on record: find, add, change, delete, name by alias. Every change leaves its line in the audit."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import JSON, ColumnElement, Row, Select, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing import audit
from hxmlops_sharing.access import Caller
from hxmlops_sharing.audit import Line
from hxmlops_sharing.database import Database
from hxmlops_sharing.garbage import add_garbage
from hxmlops_sharing.incoming import Content, Received
from hxmlops_sharing.limits import Limits
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import CHANGEABLE, Kind
from hxmlops_sharing.store import Segment, Store
from hxmlops_sharing.tables import aliases, objects, uploads
from hxmlops_sharing.times import now
from hxmlops_sharing.uploads import MAX_JSON
from hxmlops_sharing.versions import version_key

type Version = Row[Any]
type Alias = Row[Any]

CATALOGUE_PAGE = 500
"""Records that are found and encoded at a time."""


@dataclass
class Records:
    """Records found, as JSON with commas between them, in parts; how many, and the last one's identifier."""

    parts: list[bytes] = field(default_factory=list)
    count: int = 0
    last: int = 0

    def add(self, kind: Kind, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            part = b",".join([kind.encoded(row) for row in rows])
            self.parts.append(b"," + part if self.parts else part)
            self.count += len(rows)
            self.last = rows[-1]["id"]


class Registry:
    """The versions of one kind. What a caller's token is not for does not exist for that caller (404)."""

    def __init__(self, kind: Kind, database: Database, store: Store, limits: Limits) -> None:
        self.kind = kind
        self.database = database
        self.store = store
        self.limits = limits
        table = kind.table
        self._live = select(table).where(table.c.deleted_at.is_(None))

    async def find(self, identifier: int, version: str | None, caller: Caller) -> Version:
        """The version registered as `identifier`; `latest` is the newest of that one's name, `@NAME` its alias."""
        async with self.database.read() as connection:
            return await self._find(connection, identifier, version, caller)

    async def find_by_digest(self, sha256: str, caller: Caller) -> Version:
        """The version whose artifact has this digest, with or without `sha256:`."""
        table = self.kind.table
        sha256 = "sha256:" + sha256.removeprefix("sha256:")
        async with self.database.read() as connection:
            rows = await connection.execute(self._live.where(table.c.sha256 == sha256).order_by(table.c.id))
            for row in rows:
                if caller.sees(row.name):
                    return row
        raise Problem(404, "not-found", f"no {self.kind.word} has the digest {sha256}")

    async def catalogue(
        self, filters: Mapping[str, Sequence[str]], caller: Caller, *, after: int = 0, limit: int | None = None
    ) -> "Records":
        """Versions whose columns have one of the values given, in order of registration, from behind id `after`.

        Each is as it was at one moment; what is registered meanwhile may be among them.
        """
        found, wanted = Records(), min(limit or CATALOGUE_PAGE, CATALOGUE_PAGE)
        while limit is None or found.count < limit:
            rows = await self._catalogue_page(filters, after, wanted)
            seen = [row for row in rows if caller.sees(row["name"])]
            found.add(self.kind, seen if limit is None else seen[: limit - found.count])
            if len(rows) < wanted:
                break
            after, wanted = rows[-1]["id"], CATALOGUE_PAGE
        return found

    async def _catalogue_page(
        self, filters: Mapping[str, Sequence[str]], after: int, limit: int
    ) -> list[dict[str, Any]]:
        """By one statement with one row: the database puts it together at once, and without Python."""
        columns = list(self.kind.columns.values())
        of_json = [each for each in columns if isinstance(self.kind.table.c[each].type, JSON)]
        selected = ", ".join(f"CAST({each} AS text) AS {each}" if each in of_json else each for each in columns)
        conditions = ["deleted_at IS NULL", "id > ?"]
        conditions += [f"{column} IN ({', '.join('?' * len(wanted))})" for column, wanted in filters.items()]
        values = [after, *itertools.chain.from_iterable(filters.values()), limit]
        postgresql = self.database.dialect == "postgresql"
        as_array = "json_agg(json_build_array({}))" if postgresql else "json_group_array(json_array({}))"
        statement = (
            f"SELECT {as_array.format(', '.join(columns))} AS page FROM (SELECT {selected} "  # noqa: S608 (our own names)
            f"FROM {self.kind.table.name} WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?) AS rows_"
        )
        found = await self.database.fetch_slowly(statement, *values)
        rows = msgspec.json.decode(found["page"]) if found and found["page"] else []
        return sorted((dict(zip(columns, row, strict=True)) for row in rows), key=itemgetter("id"))

    async def versions(self, identifier: int, caller: Caller) -> list[Version]:
        """All versions of the name that `identifier` has, the latest first."""
        async with self.database.read() as connection:
            row = await self._find(connection, identifier, None, caller)
            return list(await connection.execute(self._newest_first(self.kind.table.c.name == row.name)))

    async def segments(self, *digests: str) -> list[tuple[Segment, ...]]:
        """Where the bytes of each digest are. Problem 500 when that is not on record."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(objects).where(objects.c.sha256.in_(digests)))
            found = {row.sha256: _segments(row.segments) for row in rows}
        missing = [digest for digest in digests if digest not in found]
        if missing:
            raise Problem(500, "damaged", "the bytes of this version are lost: tell the owner of this server")
        return [found[digest] for digest in digests]

    async def whole(self, sha256: str) -> tuple[Segment, ...] | None:
        """Where the bytes of a digest are, when the store has all of them."""
        async with self.database.read() as connection:
            row = (await connection.execute(select(objects).where(objects.c.sha256 == sha256))).one_or_none()
        if row is None:
            return None
        segments = _segments(row.segments)
        for segment in segments:
            if await self.store.size(segment.location) != segment.size:
                return None
        return segments

    async def add(
        self, metadata: Mapping[str, Any], contents: Mapping[str, Any], received: Sequence[Received],
        caller: Caller, request_id: str, *, verified: Mapping[str, Any] | None = None,
    ) -> Version:  # fmt: skip
        """Register a version: its metadata, what its bytes are, and the bytes, arrived whole.

        The same version with the same metadata and bytes is a retry and answers what is registered;
        with others it is refused (409).
        """
        table = self.kind.table
        upload_digest = digest_of_upload(metadata, contents["sha256"])
        whole = {each.content.sha256: await self.whole(each.content.sha256) for each in received}
        async with self.database.write() as connection:
            row = await self._existing(connection, metadata)
            if row is not None:
                self._check_retry(row, metadata, contents, upload_digest)
            used = [each for each in received if await _refer(connection, each.content, whole[each.content.sha256])]
            for each in received:
                await each.taken(connection, is_new=row is None)
            if row is None:
                await self.check_quota(connection, sum(each.content.size for each in received), caller)
                row = (
                    await connection.execute(
                        insert(table).returning(table),
                        {
                            **metadata,
                            **contents,
                            "version_key": version_key(metadata["version"]),
                            "upload_digest": upload_digest,
                            "created_at": now(),
                            "created_by": caller.client,
                            "verified": verified,
                        },
                    )
                ).one()
                await self._audit(connection, "upload", row, {}, caller, request_id)
            for each in used:
                each.keep()  # before the commit, whose outcome may stay unknown; the collector takes what is nobody's
            await connection.commit()
            return row

    async def change(
        self, identifier: int, version: str | None, changes: Mapping[str, Any],
        caller: Caller, request_id: str, *, merge: bool = False,
    ) -> Version:  # fmt: skip
        """Set columns of a version; `merge` adds to objects instead of replacing them. 409 for fixed ones.

        A caller with no more than the scope `annotate` may add what is not there yet (403 otherwise).
        """
        table = self.kind.table
        async with self.database.write() as connection:
            row = await self._find(connection, identifier, version, caller)
            if merge:
                if not caller.may("write"):
                    _check_annotation(row, changes, caller)
                changes = {column: row._mapping[column] | value for column, value in changes.items()}
                if any(len(json.dumps(value, ensure_ascii=False)) > MAX_JSON for value in changes.values()):
                    raise Problem(413, "too-large", f"together more than {MAX_JSON >> 20} MiB of JSON")
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
        """Make a version invisible. The collector removes it, and its bytes, when the grace period is over."""
        table = self.kind.table
        async with self.database.write() as connection:
            row = await self._find(connection, identifier, version, caller)
            await connection.execute(update(table).where(table.c.id == row.id).values(deleted_at=now()))
            await self._audit(connection, "delete", row, {}, caller, request_id)
            await connection.commit()
        return row

    async def restore(self, identifier: int, caller: Caller, request_id: str) -> Version:
        """Make a deleted version visible again. 404 when there is none, 409 when its place was taken meanwhile."""
        table = self.kind.table
        async with self.database.write() as connection:
            row = (await connection.execute(select(table).where(table.c.id == identifier))).one_or_none()
            if row is None or not caller.sees(row.name):
                raise Problem(404, "not-found", f"there is no {self.kind.word} {identifier}, or no more")
            if row.deleted_at is None:
                return row
            if await self._existing(connection, {"name": row.name, "version": row.version}):
                raise Problem(
                    409, "version-exists", f"{row.name} {row.version} was published again: it cannot be restored"
                )
            restored: Version = (
                await connection.execute(
                    update(table).where(table.c.id == row.id).values(deleted_at=None).returning(table)
                )
            ).one()
            await self._audit(connection, "restore", restored, {}, caller, request_id)
            await connection.commit()
            return restored

    async def aliases(self, name: str, caller: Caller) -> list[Alias]:
        """The aliases that a name has now, by their names."""
        newest = (
            select(aliases.c.alias, func.max(aliases.c.revision).label("revision"))
            .where(aliases.c.kind == self.kind.word, aliases.c.name == name)
            .group_by(aliases.c.alias)
            .subquery()
        )
        now_ = select(aliases).join(
            newest, and_(aliases.c.alias == newest.c.alias, aliases.c.revision == newest.c.revision)
        )
        of_name = (aliases.c.kind == self.kind.word, aliases.c.name == name, aliases.c.identifier.is_not(None))
        async with self.database.read() as connection:
            rows = list(await connection.execute(now_.where(*of_name).order_by(aliases.c.alias)))
        return rows if caller.sees(name) else []

    async def alias_history(self, name: str, alias: str, caller: Caller) -> list[Alias]:
        """What an alias was, the newest first. 404 when it never was."""
        async with self.database.read() as connection:
            rows = list(await connection.execute(self._revisions(name, alias)))
        if not rows or not caller.sees(name):
            raise Problem(404, "not-found", f"{name} has no alias {alias}")
        return rows

    async def set_alias(
        self, name: str, alias: str, identifier: int | None, expected: int | None,
        caller: Caller, request_id: str,
    ) -> Alias:  # fmt: skip
        """Let an alias name a version, or none. `expected` is the revision it must have now (0: none yet), else 412."""
        async with self.database.write() as connection:
            last = (await connection.execute(self._revisions(name, alias).limit(1))).one_or_none()
            if not caller.sees(name) or (identifier is None and (last is None or last.identifier is None)):
                raise Problem(404, "not-found", f"{name} has no alias {alias}")
            revision = last.revision if last else 0
            if expected is not None and expected != revision:
                raise Problem(
                    412, "alias-changed", f"{alias} of {name} has revision {revision}, not {expected}: look again"
                )
            if identifier is not None:
                version = await self._find(connection, identifier, None, caller)
                if version.name != name:
                    raise Problem(409, "other-name", f"{self.kind.word} {identifier} is {version.name}, not {name}")
            if last is not None and last.identifier == identifier:
                unchanged: Alias = last
                return unchanged
            row: Alias = (
                await connection.execute(
                    insert(aliases).returning(aliases),
                    {
                        "kind": self.kind.word,
                        "name": name,
                        "alias": alias,
                        "revision": revision + 1,
                        "identifier": identifier,
                        "set_at": now(),
                        "set_by": caller.client,
                    },
                )
            ).one()
            detail = {"alias": alias, "from": last.identifier if last else None, "to": identifier}
            line = Line(
                "alias", caller.client, kind=self.kind.word, identifier=identifier, name=name, detail=detail,
                request_id=request_id,
            )  # fmt: skip
            await audit.append(connection, line)
            await connection.commit()
            return row

    def line(
        self, action: str, row: Version, caller: Caller, request_id: str, detail: Mapping[str, Any] | None = None
    ) -> Line:
        """The audit's line about a version."""
        return Line(
            action, caller.client, kind=self.kind.word, identifier=row.id, name=row.name, version=row.version,
            sha256=row.sha256, detail=detail or {}, request_id=request_id,
        )  # fmt: skip

    def _check_retry(
        self, row: Version, metadata: Mapping[str, Any], contents: Mapping[str, Any], upload_digest: str
    ) -> None:
        now_ = {column: row._mapping[column] for column in metadata}
        if upload_digest not in (row.upload_digest, digest_of_upload(now_, row.sha256)):
            differs = "metadata" if row.sha256 == contents["sha256"] else "bytes"
            raise Problem(
                409, "version-exists",
                f"{row.name} {row.version} is registered with other {differs}; "
                "versions are immutable: publish a new version",
            )  # fmt: skip

    async def check_quota(self, connection: AsyncConnection, size: int, caller: Caller) -> None:
        """Problem 507 when the caller may not store `size` bytes more, files that are under way counted in."""
        if self.limits.quota_left(caller, 0) is None:
            return
        table = self.kind.table
        sizes = [column for column in table.c if column.name.endswith("size")]
        used = 0
        for column in (*sizes, uploads.c.size):
            owner = uploads.c.client if column.table is uploads else table.c.created_by
            used += (
                await connection.scalar(select(func.coalesce(func.sum(column), 0)).where(owner == caller.client)) or 0
            )
        left = self.limits.quota_left(caller, used)
        if left is not None and size > left:
            raise Problem(
                507, "quota", f"{caller.client} has {used} bytes here and may store {left} more: "
                "delete versions, or ask the owner of this server for more",
            )  # fmt: skip

    def _newest_first(self, condition: ColumnElement[bool]) -> Select[Any]:
        table = self.kind.table
        return self._live.where(condition).order_by(table.c.version_key.desc(), table.c.id.desc())

    def _revisions(self, name: str, alias: str) -> Select[Any]:
        same = (aliases.c.kind == self.kind.word, aliases.c.name == name, aliases.c.alias == alias)
        return select(aliases).where(*same).order_by(aliases.c.revision.desc())

    async def _existing(self, connection: AsyncConnection, metadata: Mapping[str, Any]) -> Version | None:
        table = self.kind.table
        same = and_(table.c.name == metadata["name"], table.c.version == metadata["version"])
        return (await connection.execute(self._live.where(same))).one_or_none()

    async def _find(self, connection: AsyncConnection, identifier: int, version: str | None, caller: Caller) -> Version:
        table = self.kind.table
        row = (await connection.execute(self._live.where(table.c.id == identifier))).one_or_none()
        if row is None or not caller.sees(row.name):
            raise Problem(404, "not-found", f"there is no {self.kind.word} {identifier}")
        if version is None or version == row.version:
            return row
        if version == "latest":
            newest = await connection.execute(self._newest_first(table.c.name == row.name).limit(1))
            return newest.one_or_none() or row
        if version.startswith("@"):
            return await self._find_alias(connection, row.name, version[1:])
        raise Problem(404, "not-found", f"{self.kind.word} {identifier} is version {row.version}, not {version}")

    async def _find_alias(self, connection: AsyncConnection, name: str, alias: str) -> Version:
        now_ = (await connection.execute(self._revisions(name, alias).limit(1))).one_or_none()
        identifier = now_.identifier if now_ else None
        row = (await connection.execute(self._live.where(self.kind.table.c.id == identifier))).one_or_none()
        if row is None:
            raise Problem(404, "not-found", f"no version of {name} has the alias {alias}")
        return row

    async def _audit(
        self, connection: AsyncConnection, action: str, row: Version, detail: Mapping[str, Any],
        caller: Caller, request_id: str,
    ) -> None:  # fmt: skip
        await audit.append(connection, self.line(action, row, caller, request_id, detail))


async def _refer(connection: AsyncConnection, content: Content, whole: tuple[Segment, ...] | None) -> bool:
    """Have the digest's object refer to all its bytes; whether it refers to those of `content`.

    `whole` is where the store had all bytes of the digest a moment ago. Bytes that were lost are replaced.
    """
    row = (await connection.execute(select(objects).where(objects.c.sha256 == content.sha256))).one_or_none()
    there = _segments(row.segments) if row else None
    if there is not None and there in (whole, content.segments):
        return there == content.segments
    if content.segments == whole:  # not stored again, as it was there; collected since
        raise Problem(503, "again", "an equal upload was removed meanwhile: send it again", {"Retry-After": "1"})
    value = {
        "sha256": content.sha256,
        "size": content.size,
        "segments": [[segment.location, segment.size] for segment in content.segments],
        "created_at": now(),
    }
    if there is None:
        await connection.execute(insert(objects), value)
    else:
        await connection.execute(update(objects).where(objects.c.sha256 == content.sha256).values(value))
        await add_garbage(connection, [segment.location for segment in there])
    return True


def _segments(stored: Sequence[Sequence[Any]]) -> tuple[Segment, ...]:
    return tuple(Segment(location, size) for location, size in stored)


def _check_annotation(row: Version, changes: Mapping[str, Any], caller: Caller) -> None:
    there = [
        member
        for column, value in changes.items()
        for member in value
        if member in row._mapping[column] and row._mapping[column][member] != value[member]
    ]
    if there:
        raise Problem(
            403, "forbidden", f"the token of {caller.client} may add, not replace: {', '.join(map(repr, there))}"
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
