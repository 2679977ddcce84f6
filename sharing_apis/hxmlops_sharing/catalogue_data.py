"""What the catalogue page shows, read from the tables: paged, by index, in a fixed number of queries a page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    String,
    and_,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    values,
)
from sqlalchemy import (
    column as a_column,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing.access import Caller
from hxmlops_sharing.records import SAME_STATUS, Kind
from hxmlops_sharing.tables import aliases, audit, garbage, objects, uploads

PAGE = 50
HISTORY = 100
MANY = 2000

type Version = Row[Any]


@dataclass(frozen=True)
class Page[Item]:
    """Some items in order; `more` says whether others follow."""

    items: list[Item]
    more: bool


@dataclass(frozen=True)
class Filters:
    """What a person looks for; "" for anything. `state` is a model's status or a dataset's data type."""

    name: str = ""
    tag: str = ""
    state: str = ""
    domain: str = ""

    def __bool__(self) -> bool:
        return any((self.name, self.tag, self.state, self.domain))


async def artifacts(
    connection: AsyncConnection, kind: Kind, filters: Filters, caller: Caller, after: str = ""
) -> Page[Version]:
    """For each name, in order and from behind `after`, the newest version that matches; `versions` counts all."""
    seen: list[str] = []
    limit = PAGE + 1
    while len(seen) <= PAGE:
        names = (await connection.execute(_names(kind, filters, caller, after, limit))).scalars().all()
        seen += [name for name in names if caller.sees(name)]
        if len(names) < limit:
            break
        after, limit = names[-1], MANY  # most are of others
    if not seen:
        return Page([], False)
    rows = await connection.execute(_newest(kind, filters, caller, seen[:PAGE]))
    return Page(list(rows.all()), len(seen) > PAGE)


def _names(kind: Kind, filters: Filters, caller: Caller, after: str, limit: int) -> Select[Any]:
    """Names in order. Steps from one to the next by index, however many versions each of them has."""

    def next_name(behind: Any) -> ColumnElement[str]:
        each = kind.table.alias()
        matching = (*_matching(each, filters, caller), each.c.name > behind)
        return select(each.c.name).where(*matching).order_by(each.c.name).limit(1).scalar_subquery()

    names = select(next_name(after).label("name"), literal(1).label("number")).cte("names", recursive=True)
    names = names.union_all(
        select(next_name(names.c.name), names.c.number + 1).where(names.c.name.is_not(None), names.c.number < limit)
    )
    return select(names.c.name).where(names.c.name.is_not(None)).order_by(names.c.number)


def _newest(kind: Kind, filters: Filters, caller: Caller, names: Sequence[str]) -> Select[Any]:
    """The newest version that matches of each of these names, in their order."""
    table = kind.table
    each, counted = table.alias(), table.alias()
    name = values(a_column("name", String), name="listed").data([(name,) for name in names]).cte()
    newest = (
        select(each.c.id)
        .where(*_matching(each, filters, caller), each.c.name == name.c.name)
        .order_by(each.c.version_key.desc(), each.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    live = and_(counted.c.name == name.c.name, counted.c.deleted_at.is_(None))
    versions = select(func.count()).select_from(counted).where(live).scalar_subquery()
    shown = [table.c[column] for column in _SHOWN if column in table.c]
    return select(*shown, versions.label("versions")).join(name, table.c.id == newest).order_by(table.c.name)


_SHOWN = (
    "id", "name", "version", "tag", "sha256", "created_at", "created_by", "deleted_at", "verified", "status",
    "domain", "library", "library_version", "size", "data_type", "dataset_size", "data_model_size",
)  # fmt: skip
"""All but the objects, which may be large."""


def _matching(table: FromClause, filters: Filters, caller: Caller) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [table.c.deleted_at.is_(None), _perhaps_seen(table.c.name, caller)]
    wanted += [
        table.c[column].icontains(text, autoescape=True)
        for column in ("name", "tag", "domain")
        if (text := getattr(filters, column)) and column in table.c
    ]
    if filters.state:
        column = "status" if "status" in table.c else "data_type"
        wanted.append(table.c[column].in_(SAME_STATUS.get(filters.state, (filters.state,))))
    return wanted


def _perhaps_seen(name: ColumnElement[str], caller: Caller) -> ColumnElement[bool]:
    """True for all names that the caller sees, and perhaps for others: `caller.sees` has the last word."""
    if "*" in caller.artifacts:
        return true()
    return or_(*(name.like(_like(pattern), escape="\\") for pattern in caller.artifacts), not_(true()))


def _like(glob: str) -> str:
    """A pattern of LIKE for a glob; `[…]` matches any one character."""
    special = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
    parts = re.split(r"(\[!?\]?[^\]]*\])", glob)
    return "".join(
        "_" if number % 2 else "".join(special.get(character, character) for character in part)
        for number, part in enumerate(parts)
    )


async def versions(
    connection: AsyncConnection, kind: Kind, name: str, *, with_deleted: bool, after: int | None = None
) -> Page[Version]:
    """The versions of a name, newest first, from behind the version `after`."""
    table = kind.table
    wanted = [table.c.name == name]
    if not with_deleted:
        wanted.append(table.c.deleted_at.is_(None))
    if after is not None:
        place = (await connection.execute(select(table.c.version_key).where(table.c.id == after))).scalar()
        if place is not None:
            key = table.c.version_key
            wanted.append(or_(key < place, and_(key == place, table.c.id < after)))
    newest_first = (table.c.version_key.desc(), table.c.id.desc())
    shown = [table.c[column] for column in _SHOWN if column in table.c]
    rows = (await connection.execute(select(*shown).where(*wanted).order_by(*newest_first).limit(PAGE + 1))).all()
    return Page(list(rows[:PAGE]), len(rows) > PAGE)


async def latest(connection: AsyncConnection, kind: Kind, name: str) -> int | None:
    """The identifier of the newest version of a name."""
    table = kind.table
    newest = select(table.c.id).where(table.c.name == name, table.c.deleted_at.is_(None))
    ordered = newest.order_by(table.c.version_key.desc(), table.c.id.desc()).limit(1)
    identifier: int | None = (await connection.execute(ordered)).scalar()
    return identifier


async def version(connection: AsyncConnection, kind: Kind, identifier: int, *, with_deleted: bool) -> Version | None:
    """One version with all its columns."""
    row = (await connection.execute(select(kind.table).where(kind.table.c.id == identifier))).one_or_none()
    return None if row is None or (row.deleted_at is not None and not with_deleted) else row


@dataclass(frozen=True)
class Aliases:
    """The aliases of a name: `now`, those that are set, and `history`, the newest changes first."""

    now: list[Row[Any]]
    history: list[Row[Any]]

    def of(self, identifier: int) -> list[str]:
        return [row.alias for row in self.now if row.identifier == identifier]


async def aliases_of(connection: AsyncConnection, kind: Kind, name: str) -> Aliases:
    """Each row has `version`, that of its identifier."""
    table, later = kind.table, aliases.alias()
    rows = (
        select(aliases, table.c.version)
        .outerjoin(table, table.c.id == aliases.c.identifier)
        .where(aliases.c.kind == kind.word, aliases.c.name == name)
    )
    same = and_(later.c.kind == aliases.c.kind, later.c.name == aliases.c.name, later.c.alias == aliases.c.alias)
    highest = select(func.max(later.c.revision)).where(same).correlate(aliases).scalar_subquery()
    now = rows.where(aliases.c.revision == highest, aliases.c.identifier.is_not(None)).order_by(aliases.c.alias)
    history = rows.order_by(aliases.c.id.desc()).limit(HISTORY)
    return Aliases(list((await connection.execute(now)).all()), list((await connection.execute(history)).all()))


async def holders(
    connection: AsyncConnection, kind: Kind, digests: Iterable[str], caller: Caller
) -> Mapping[str, list[Any]]:
    """The versions here, ten of each at most, whose bytes or files have these digests; those the caller sees."""
    wanted = sorted(set(digests))[:200]
    table = kind.table
    found: dict[str, list[Any]] = {}
    for column in ("sha256", "dataset_sha256", "data_model_sha256"):
        if column not in table.c or not wanted:
            continue
        matching = (table.c[column].in_(wanted), table.c.deleted_at.is_(None))
        query = select(table.c.id, table.c.name, table.c.version, table.c[column].label("digest")).where(*matching)
        for row in await connection.execute(query.order_by(table.c.id.desc()).limit(1000)):
            held = found.setdefault(row.digest, [])
            if caller.sees(row.name) and len(held) < 10:
                held.append(row)
    return found


@dataclass(frozen=True)
class AuditFilters:
    """What of the audit is wanted; "" for all."""

    client: str = ""
    action: str = ""
    name: str = ""
    version: str = ""

    def __bool__(self) -> bool:
        return any((self.client, self.action, self.name, self.version))


async def audit_lines(
    connection: AsyncConnection, filters: AuditFilters, before: int | None = None, limit: int = PAGE
) -> Page[Row[Any]]:
    """Lines of the audit, newest first, from before the line numbered `before`."""
    wanted = [
        audit.c[column] == getattr(filters, column)
        for column in ("client", "action", "name", "version")
        if getattr(filters, column)
    ]
    if before is not None:
        wanted.append(audit.c.id < before)
    rows = (await connection.execute(select(audit).where(*wanted).order_by(audit.c.id.desc()).limit(limit + 1))).all()
    return Page(list(rows[:limit]), len(rows) > limit)


@dataclass(frozen=True)
class Storage:
    """What is kept: counts, and sizes in bytes."""

    objects: int
    bytes: int
    live: int
    deleted: int
    garbage: int
    uploads: int
    uploads_received: int
    uploads_declared: int
    open: Sequence[Any] = field(default_factory=list)
    """The uploads that expire first, PAGE at most."""


async def storage(connection: AsyncConnection, kind: Kind) -> Storage:
    table = kind.table
    stored = (await connection.execute(select(func.count(), func.coalesce(func.sum(objects.c.size), 0)))).one()
    received, declared = func.sum(uploads.c.received), func.sum(uploads.c.size)
    underway = (
        await connection.execute(select(func.count(), func.coalesce(received, 0), func.coalesce(declared, 0)))
    ).one()
    live = (await connection.execute(select(func.count()).where(table.c.deleted_at.is_(None)))).scalar_one()
    all_ = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    lost = (await connection.execute(select(func.count()).select_from(garbage))).scalar_one()
    shown = (uploads.c.client, uploads.c.size, uploads.c.received, uploads.c.created_at, uploads.c.expires_at)
    open_ = (await connection.execute(select(*shown).order_by(uploads.c.expires_at).limit(PAGE))).all()
    return Storage(stored[0], int(stored[1]), live, all_ - live, lost, underway[0], int(underway[1]),
                   int(underway[2]), open_)  # fmt: skip


def size_of(row: Version) -> int:
    """Bytes of a version's files together."""
    values = row._mapping
    return int(values["size"] if "size" in values else values["dataset_size"] + values["data_model_size"])
