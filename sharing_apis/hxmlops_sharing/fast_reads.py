"""Records by id, as often as clients may ask: the same answers as the route's, without the framework's cost.

Whatever is unusual about a request - its id, its query, its method, a refusal - is left to the route behind.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from hxmlops_sharing.access import Caller
from hxmlops_sharing.database import DatabaseUnavailable
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import Kind
from hxmlops_sharing.service import Service, noted

PLAIN_QUERIES = (b"", b"version=latest")
ROUTE = "/api/v1/{kind}/{{identifier}}/data"


class FastReads:
    """ASGI middleware around the routes of one kind."""

    def __init__(self, app: ASGIApp, kind: Kind) -> None:
        self.app = app
        self._kind = kind
        self._path = re.compile(rf"/api/v1/{kind.word}/([1-9][0-9]{{0,8}})/data", re.ASCII)
        self._route = _Named(ROUTE.format(kind=kind.word))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = scope["type"] == "http" and scope["method"] == "GET" and self._path.fullmatch(scope["path"])
        if not match or scope["query_string"] not in PLAIN_QUERIES:
            await self.app(scope, receive, send)
            return
        service: Service = scope["app"].state.service
        found = await self._found(service, scope, int(match[1]))
        if found is None:
            await self.app(scope, receive, send)
            return
        caller, row = found
        scope["state"]["client"] = caller.client
        scope["route"] = self._route
        request_id = scope["state"]["request_id"]
        noted(service, caller, "read", request_id, identifier=row["id"], name=row["name"], version=row["version"])
        body = msgspec.json.encode(self._record(row))
        fields = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _found(self, service: Service, scope: Scope, identifier: int) -> tuple[Caller, Mapping[str, Any]] | None:
        """The caller and the row to answer; None when the answer is another."""
        try:
            caller = await service.authenticate(_token(scope))
            if not caller.may("read"):
                return None
            row = await service.database.fetch(self._statement(service.database.dialect), identifier)
            if row is None or not caller.sees(row["name"]):
                return None
            service.limits.check(caller, _peer(scope))
        except (Problem, DatabaseUnavailable):
            return None  # the route finds the same, and says it
        return caller, row

    def _statement(self, dialect: str) -> str:
        table = self._kind.table.name
        value = "$1" if dialect == "postgresql" else "?"
        return (
            f"SELECT * FROM {table} WHERE deleted_at IS NULL AND name = "  # noqa: S608 (a table's name)
            f"(SELECT name FROM {table} WHERE id = {value} AND deleted_at IS NULL) "
            "ORDER BY version_key DESC, id DESC LIMIT 1"
        )

    def _record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """As `Kind.record` has it; JSON, which comes as text, goes out as it is."""
        return {
            member: msgspec.Raw(row[column]) if column in ("parameters", "characteristics") else row[column]
            for member, column in self._kind.columns.items()
            if member != "class" or row[column] is not None
        }


class _Named:
    """Stands for the route in the figures."""

    def __init__(self, path: str) -> None:
        self.path = path


def _token(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" and token else None


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""
