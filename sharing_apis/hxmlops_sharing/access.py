"""Who may do what: a bearer token names a client, its scopes and the artifacts it is for.

What tokens are in force is audited from here too: a line for each that appears and each that is taken back.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing.audit import Line, append
from hxmlops_sharing.database import Database
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.tables import grants as noticed
from hxmlops_sharing.times import now
from hxmlops_sharing.tokens import SCOPES, Grant

INCLUDED_IN = {"annotate": ("write", "admin"), "read": ("admin",), "write": ("admin",), "admin": ()}
"""The wider scopes that allow the same. `write` does not let anyone read."""


@dataclass(frozen=True)
class Caller:
    """Whoever made a request. A quota or rate of 0 leaves it to the server's settings."""

    client: str
    scopes: frozenset[str]
    artifacts: tuple[str, ...]
    purpose: str = ""
    recipient: str = ""
    quota_bytes: int = 0
    requests_per_minute: int = 0

    @classmethod
    def of(cls, grant: Grant) -> Self:
        """The holder of a grant's token."""
        return cls(
            grant.client,
            frozenset(grant.scopes),
            grant.artifacts,
            grant.purpose,
            grant.recipient,
            grant.quota_bytes,
            grant.requests_per_minute,
        )

    def may(self, scope: str) -> bool:
        return scope in self.scopes or not self.scopes.isdisjoint(INCLUDED_IN[scope])

    def sees(self, name: str) -> bool:
        """Whether an artifact of this name is in what the token is for; of others nothing is told."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.artifacts)


EVERYONE = Caller("anonymous", frozenset(SCOPES), ("*",))
"""The caller of every request where authentication is off."""


def unauthorized(detail: str, error: str = "invalid_token") -> Problem:
    """401 with the challenge of RFC 6750; `error` is empty where no token was given. `detail` is fixed text."""
    challenge = f'Bearer error="{error}", error_description="{detail}"' if error else "Bearer"
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": challenge})


async def notice_grants(database: Database, grants: Sequence[Grant]) -> None:
    """Audit what has changed among the grants in force since any server of this database has looked.

    Each appearance and each end gets one line, however many servers notice; a token whose grant was altered gets both.
    """
    in_force = {grant.sha256: grant.to_json() for grant in grants}
    async with database.read() as connection:
        if await _seen(connection) == in_force:
            return
    async with database.write() as connection:
        seen = await _seen(connection)  # another server may have been first
        ended = {digest: grant for digest, grant in seen.items() if in_force.get(digest) != grant}
        begun = {digest: grant for digest, grant in in_force.items() if seen.get(digest) != grant}
        for digest in ended:
            await connection.execute(delete(noticed).where(noticed.c.sha256 == digest))
        if begun:
            rows = [{"sha256": digest, "grant": grant, "seen_at": now()} for digest, grant in begun.items()]
            await connection.execute(insert(noticed), rows)
        lines = [_line("revoke", grant) for grant in ended.values()] + [
            _line("grant", grant) for grant in begun.values()
        ]
        await append(connection, *lines)
        await connection.commit()


async def _seen(connection: AsyncConnection) -> dict[str, dict[str, Any]]:
    rows = await connection.execute(select(noticed.c.sha256, noticed.c.grant))
    return {row.sha256: row.grant for row in rows}


def _line(action: str, grant: dict[str, Any]) -> Line:
    """What a grant allows, and of the token's digest enough to tell it from others."""
    detail = {name: value for name, value in grant.items() if name not in ("sha256", "client")}
    token = grant["sha256"].removeprefix("sha256:")[:12]
    return Line(action, grant["client"], detail=detail | {"token": token})
