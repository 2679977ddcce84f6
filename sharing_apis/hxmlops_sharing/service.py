"""What the routes stand on: one server's registry, store and tokens, and the dependencies that give them out."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Self

import structlog
from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hxmlops_sharing.access import EVERYONE, Caller
from hxmlops_sharing.database import Database
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import DATASET, MODEL
from hxmlops_sharing.registry import Registry
from hxmlops_sharing.settings import Settings
from hxmlops_sharing.store import Store
from hxmlops_sharing.tokens import TokensError, TokensFile, find, token_digest

log = structlog.get_logger("hxmlops_sharing")


@dataclass(frozen=True)
class Service:
    """One running server's parts."""

    registry: Registry
    store: Store
    tokens: TokensFile | None
    """None: authentication is off."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Everything made ready. DatabaseError, StoreError or TokensError when it cannot be."""
        tokens = TokensFile(settings.tokens) if settings.auth == "tokens" and settings.tokens else None
        if tokens is None:
            log.critical(
                "authentication_is_off: whoever reaches this server may read, write and delete",
                host=settings.host,
                port=settings.port,
            )
        else:
            tokens.grants()
        store = FolderStore(settings.store)
        await store.open()
        database = Database(settings.database)
        try:
            await database.open()
            kind = MODEL if settings.kind == "model" else DATASET
            yield cls(Registry(kind, database, store), store, tokens)
        finally:
            await database.close()

    def authenticate(self, token: str | None) -> Caller:
        """Who holds this token. Problem 401 or, when the tokens file is broken, 503."""
        if self.tokens is None:
            return EVERYONE
        if token is None:
            raise _unauthorized("a bearer token is required", "")
        try:
            grant = find(self.tokens.grants(), token_digest(token.encode()))
        except TokensError as error:
            log.error("tokens_file", reason=str(error))
            raise Problem(503, "tokens-unreadable", "the server cannot read its tokens: tell its owner") from None
        if grant is None:
            raise _unauthorized("the token is unknown", "invalid_token")
        if grant.expires <= datetime.now(UTC):
            raise _unauthorized(f"the token expired at {grant.expires_at}", "invalid_token")
        return Caller(grant.client, frozenset(grant.scopes), grant.artifacts)


def _unauthorized(detail: str, error: str) -> Problem:
    challenge = f'Bearer error="{error}", error_description="{detail}"' if error else "Bearer"
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": challenge})


async def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def get_request_id(request: Request) -> str:
    return str(request.state.request_id)


ServiceHere = Annotated[Service, Depends(get_service)]
RequestId = Annotated[str, Depends(get_request_id)]

bearer = HTTPBearer(auto_error=False, description="a token from `token create`")


def _require(scope: str) -> Callable[..., Awaitable[Caller]]:
    async def require(
        request: Request,
        service: ServiceHere,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Caller:
        caller = service.authenticate(credentials.credentials if credentials else None)
        request.state.client = caller.client
        if not caller.may(scope):
            raise Problem(403, "forbidden", f"the token of {caller.client} lacks the scope '{scope}'")
        return caller

    return require


Reader = Annotated[Caller, Depends(_require("read"))]
Writer = Annotated[Caller, Depends(_require("write"))]
Admin = Annotated[Caller, Depends(_require("admin"))]

Identifier = Annotated[int, Path(ge=1, le=2**63 - 1)]
DigestInPath = Annotated[str, Path(pattern="^(sha256:)?[0-9a-f]{64}$", description="with or without `sha256:`")]
VersionOrLatest = Annotated[str, Query(description="the version, or `latest`: the newest of its name")]
SameVersion = Annotated[str | None, Query(description="when given, must be the version of this id")]


def check_name(caller: Caller, name: str) -> None:
    """Problem 403 for a name that the caller's token is not for."""
    if not caller.sees(name):
        raise Problem(403, "forbidden", f"the token of {caller.client} is not for an artifact named {name}")


def given(**filters: str | None) -> dict[str, list[str]]:
    """A catalogue's filters that were given a value."""
    return {column.rstrip("_"): [value] for column, value in filters.items() if value}
