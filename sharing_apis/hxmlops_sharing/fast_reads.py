"""Records by id, as often as clients may ask: the same answers as the route's, without the framework's cost.

Whatever is unusual about a request - its id, its query, its method, a refusal - is left to the route behind.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from hxmlops_sharing.access import Caller
from hxmlops_sharing.database import DatabaseUnavailable
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import Kind
from hxmlops_sharing.service import Service, noted

PLAIN_QUERY = re.compile(rb"(?:version=([A-Za-z0-9._-]+))?")
ROUTE = "/api/v1/{kind}/{{identifier}}/data"


class FastReads:
    """ASGI middleware around the routes of one kind."""

    def __init__(self, app: ASGIApp, kind: Kind) -> None:
        self.app = app
        self._kind = kind
        self._path = re.compile(rf"/api/v1/{kind.word}/([1-9][0-9]{{0,8}})/data", re.ASCII)
        self._route = _Named(ROUTE.format(kind=kind.word))
        table = kind.table.name
        self._one = f"SELECT * FROM {table} WHERE id = ? AND version = ? AND deleted_at IS NULL"  # noqa: S608 (a table)
        self._latest = (
            f"SELECT * FROM {table} WHERE deleted_at IS NULL AND name = "  # noqa: S608 (a table's name)
            f"(SELECT name FROM {table} WHERE id = ? AND deleted_at IS NULL) "
            "ORDER BY version_key DESC, id DESC LIMIT 1"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = scope["type"] == "http" and scope["method"] == "GET" and self._path.fullmatch(scope["path"])
        query = match and PLAIN_QUERY.fullmatch(scope["query_string"])
        if not match or not query:
            await self.app(scope, receive, send)
            return
        service: Service = scope["app"].state.service
        found = await self._found(service, scope, int(match[1]), (query[1] or b"latest").decode())
        if found is None:
            await self.app(scope, receive, send)
            return
        caller, row = found
        scope["state"]["client"] = caller.client
        scope["route"] = self._route
        request_id = scope["state"]["request_id"]
        noted(service, caller, "read", request_id, identifier=row["id"], name=row["name"], version=row["version"])
        body = self._kind.encoded(row)
        fields = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _found(
        self, service: Service, scope: Scope, identifier: int, version: str
    ) -> tuple[Caller, Mapping[str, Any]] | None:
        """The caller and the row to answer; None when the answer is another."""
        try:
            caller = await service.authenticate(_token(scope))
            if not caller.may("read"):
                return None
            if version == "latest":
                row = await service.database.fetch(self._latest, identifier)
            else:
                row = await service.database.fetch(self._one, identifier, version)
            if row is None or not caller.sees(row["name"]):
                return None
            service.limits.check(caller, _peer(scope))
        except (Problem, DatabaseUnavailable):
            return None  # the route finds the same, and says it
        return caller, row


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
