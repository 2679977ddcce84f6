"""What the routes stand on: one server's parts, and the dependencies that give them out."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

import structlog
from fastapi import Depends, Query, Request
from fastapi import Path as PathParameter
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select

from hxmlops_sharing import __version__
from hxmlops_sharing.access import EVERYONE, Caller, notice_grants, unauthorized
from hxmlops_sharing.audit import AuditLog, Line
from hxmlops_sharing.database import Database
from hxmlops_sharing.deliveries import Signer
from hxmlops_sharing.files import Files
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.health import Readiness
from hxmlops_sharing.incoming import Receiver
from hxmlops_sharing.limits import Limits
from hxmlops_sharing.metrics import MeasuredStore, Metrics
from hxmlops_sharing.oidc import Oidc
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import DATASET, MODEL
from hxmlops_sharing.registry import Registry
from hxmlops_sharing.settings import ENVIRONMENT, Settings, SettingsError
from hxmlops_sharing.store import Store
from hxmlops_sharing.tokens import Grant, TokensError, TokensFile, find, token_digest

log = structlog.get_logger("hxmlops_sharing")


@dataclass(frozen=True)
class Service:
    """One running server's parts."""

    settings: Settings
    database: Database
    store: Store
    registry: Registry
    receiver: Receiver
    files: Files
    audit: AuditLog
    metrics: Metrics
    readiness: Readiness
    limits: Limits
    tokens: TokensFile | None
    oidc: Oidc | None
    signer: Signer | None
    """Signs receipts; None: there are none."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Everything made ready. DatabaseError, StoreError, TokensError or SettingsError when it cannot be."""
        tokens = TokensFile(settings.tokens) if settings.auth == "tokens" and settings.tokens else None
        if settings.auth == "none":
            log.critical(
                "authentication_is_off: whoever reaches this server may read, write and delete",
                host=settings.host,
                port=settings.port,
            )
        if tokens is not None:
            tokens.grants()
        async with contextlib.AsyncExitStack() as stack:
            metrics = Metrics(kind=settings.kind, version=__version__)
            store = MeasuredStore(make_store(settings), metrics)
            stack.push_async_callback(store.close)
            await store.open()
            database = Database(settings)
            stack.push_async_callback(database.close)
            await database.open()
            limits = Limits(settings)
            await check_kind(database, settings)
            registry = Registry(MODEL if settings.kind == "model" else DATASET, database, store, limits)
            audit = AuditLog(database)
            stack.push_async_callback(audit.close)
            receiver = Receiver(
                store, registry.whole, limit=settings.max_upload_bytes, open_uploads=metrics.open_uploads
            )
            files = Files(registry, receiver, expiry_hours=settings.upload_expiry_hours)
            stack.push_async_callback(files.close)
            readiness = Readiness(database, store)
            stack.push_async_callback(readiness.close)
            service = cls(
                settings=settings,
                database=database,
                store=store,
                registry=registry,
                receiver=receiver,
                files=files,
                audit=audit,
                metrics=metrics,
                readiness=readiness,
                limits=limits,
                tokens=tokens,
                oidc=Oidc(settings) if settings.oidc_issuer else None,
                signer=Signer(settings.signing_key, settings.issuer or socket.gethostname())
                if settings.signing_key
                else None,
            )
            if tokens is not None:
                await notice_grants(database, tokens.grants())
                tokens.noticed = tokens.reads
            yield service

    async def authenticate(self, token: str | None) -> Caller:
        """Who holds this token. Problem 401 or, when that cannot be told now, 503."""
        if self.settings.auth == "none":
            return EVERYONE
        if token is None:
            raise unauthorized("a bearer token is required", "")
        if self.oidc is not None and token.count(".") == 2:
            return await self.oidc.authenticate(token)
        grant = await self._grant(token)
        if grant is None:
            raise unauthorized("the token is unknown")
        if grant.expires <= datetime.now(UTC):
            raise unauthorized(f"the token expired at {grant.expires_at}")
        return Caller.of(grant)

    async def _grant(self, token: str) -> Grant | None:
        if self.tokens is None:
            return None
        try:
            grants = self.tokens.grants()
        except TokensError as error:
            log.error("tokens_file", reason=str(error))
            raise Problem(503, "tokens-unreadable", "the server cannot read its tokens: tell its owner") from None
        if self.tokens.noticed != (reads := self.tokens.reads):
            await notice_grants(self.database, grants)
            self.tokens.noticed = reads
        return find(grants, token_digest(token.encode()))


async def check_kind(database: Database, settings: Settings) -> None:
    """SettingsError for a database that has versions of the other kind, whose bytes are in another store."""
    other = DATASET if settings.kind == "model" else MODEL
    async with database.read() as connection:
        if (await connection.execute(select(other.table.c.id).limit(1))).first():
            raise SettingsError(
                f"{ENVIRONMENT}DATABASE {database.name} has {other.word}s in it: "
                f"name one for {settings.kind}s alone, or set {ENVIRONMENT}KIND={other.word}"
            )


def make_store(settings: Settings) -> Store:
    """The store that the settings name, not opened."""
    if settings.on_s3:
        from hxmlops_sharing.s3_store import S3Store  # imports obstore

        return S3Store(settings)
    return FolderStore(Path(settings.store))


async def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def get_request_id(request: Request) -> str:
    return str(request.state.request_id)


ServiceHere = Annotated[Service, Depends(get_service)]
RequestId = Annotated[str, Depends(get_request_id)]

bearer = HTTPBearer(auto_error=False, description="a token from `token create`, or a JWT of the OpenID Connect issuer")


def _require(scope: str) -> Callable[..., Awaitable[Caller]]:
    async def require(
        request: Request,
        service: ServiceHere,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Caller:
        if len(request.headers.getlist("authorization")) > 1:
            raise Problem(400, "malformed", "Authorization is there twice")
        return await admit(request, service, credentials.credentials if credentials else None, scope)

    return require


async def admit(request: Request, service: Service, token: str | None, scope: str) -> Caller:
    """The caller that holds this token, if it has the scope and has not called too often. Problem 401, 403, 429."""
    peer = request.client.host if request.client else ""
    try:
        caller = await service.authenticate(token)
    except Problem:
        service.limits.check(None, peer)
        raise
    request.state.client = caller.client
    service.limits.check(caller, peer)
    if not caller.may(scope):
        raise Problem(403, "forbidden", f"the token of {caller.client} lacks the scope '{scope}'")
    return caller


Reader = Annotated[Caller, Depends(_require("read"))]
Annotator = Annotated[Caller, Depends(_require("annotate"))]
Writer = Annotated[Caller, Depends(_require("write"))]
Admin = Annotated[Caller, Depends(_require("admin"))]

Identifier = Annotated[int, PathParameter(ge=1, le=2**31 - 1)]
DigestInPath = Annotated[
    str, PathParameter(pattern="^(sha256:)?[0-9a-f]{64}$", description="with or without `sha256:`")
]
VersionOrLatest = Annotated[str, Query(description="the version, `latest`: the newest of its name, or `@ALIAS`")]
SameVersion = Annotated[str | None, Query(description="when given, must be the version of this id")]


def check_name(caller: Caller, name: str) -> None:
    """Problem 403 for a name that the caller's token is not for."""
    if not caller.sees(name):
        raise Problem(403, "forbidden", f"the token of {caller.client} is not for an artifact named {name}")


def given(**filters: str | None) -> dict[str, list[str]]:
    """A catalogue's filters that were given a value."""
    return {column.rstrip("_"): [value] for column, value in filters.items() if value}


def noted(service: Service, caller: Caller, action: str, request_id: str, **about: str | int | None) -> None:
    """Have the audit say soon that the caller looked at something."""
    known = {"identifier": about.get("identifier"), "name": about.get("name"), "version": about.get("version")}
    service.audit.note(
        Line(action, caller.client, kind=service.registry.kind.word, request_id=request_id, **known)  # type: ignore[arg-type]
    )
