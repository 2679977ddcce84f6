"""Run one server: its parts opened, its ports bound, until it is told to stop."""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from types import FrameType

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from hxmlops_sharing.app import create_app
from hxmlops_sharing.collect import collect_regularly
from hxmlops_sharing.database import DatabaseError
from hxmlops_sharing.figures import Figures
from hxmlops_sharing.frame import note_unread
from hxmlops_sharing.logs import configure_logs
from hxmlops_sharing.metrics_server import listening
from hxmlops_sharing.protocol import Admission, Protocol
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import ENVIRONMENT, Settings, SettingsError, read_settings
from hxmlops_sharing.store import StoreError
from hxmlops_sharing.tokens import TokensError

GRACE_S = 20
"""Seconds that requests under way have to end after SIGTERM; then they are cut as if their clients had left."""
CUT_S = 5
"""Seconds that what was cut has to tidy up."""
DESCRIPTORS = 65536
MALLOC = {-3: 32 << 20, -1: 64 << 20, -2: 16 << 20}
"""Bytes of M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, by their numbers in glibc's malloc.h."""
PATHS = ("", "/", "/live", "/ready", "/health", "/catalogue", "/api/v1")
"""What a server answers below its prefix: each of these and what is below the longer ones."""

log = structlog.get_logger("hxmlops_sharing")


def serve() -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0, or 2 when the settings or what they name are unusable."""
    started = time.perf_counter()
    try:
        settings = read_settings()
        configure_logs()
        os.umask(0o077)  # records and bytes are for this user alone
        for stop in (signal.SIGTERM, signal.SIGINT):  # the server puts its own handlers in place while it serves
            signal.signal(stop, lambda *_: sys.exit(0))
        _raise_descriptor_limit()
        _keep_freed_memory()
        with bind(settings) as sock:
            uvloop.run(_run(settings, sock, started))
    except (SettingsError, DatabaseError, StoreError, TokensError) as error:
        print(f"hxmlops_sharing: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(settings: Settings, sock: socket.socket, started: float) -> None:
    context = _tls_of(settings)
    async with Service.open(settings) as service, contextlib.AsyncExitStack() as beside:
        figures = Figures(service.database, service.readiness, service.metrics)
        metrics_port = beside.enter_context(listening(settings, service.metrics, figures.refresh))
        if settings.collect_every_minutes:
            await beside.enter_async_context(_beside(collect_regularly(service)))
        if context is not None:
            await beside.enter_async_context(_beside(_renew(context, settings)))
        server = server_of(create_app(service), context=context, path_prefix=settings.path_prefix)
        gc.freeze()  # what is here stays: to look through it again holds everybody up for a tenth of a second
        host, port = sock.getsockname()[:2]
        took = round(time.perf_counter() - started, 3)
        more = {} if metrics_port is None else {"metrics_port": metrics_port}
        log.info("serving", kind=settings.kind, host=host, port=port, tls=context is not None, start_s=took, **more)
        await server.serve(sockets=[sock])


class Server(uvicorn.Server):
    """Ends as `GRACE_S` and `CUT_S` say after one SIGTERM or SIGINT, at once after a second."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        cut = asyncio.get_running_loop().call_later(GRACE_S, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            signal.signal(sig, signal.SIG_DFL)  # a third ends whatever hangs
            asyncio.get_running_loop().call_soon_threadsafe(self._cut)
        super().handle_exit(sig, frame)

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def server_of(app: FastAPI, *, context: ssl.SSLContext | None = None, path_prefix: str = "") -> Server:
    def note(status: int, request_id: str) -> None:
        note_unread(app.state.service, status, request_id)

    class Observed(Protocol):
        refused = staticmethod(note)

    return Server(
        uvicorn.Config(
            Admission(Prefixed(app, path_prefix) if path_prefix else app, note),
            http=Observed,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_S + CUT_S,
            ssl_context_factory=(lambda *_: context) if context is not None else None,
        )
    )


class Prefixed:
    """ASGI application: another behind a path prefix, whether the proxy in front takes the prefix off or not."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        below = path.removeprefix(self.prefix) if path.startswith(self.prefix) else None
        if below is not None and any(below == each or (each > "/" and below.startswith(each + "/")) for each in PATHS):
            path = below or "/"
        if f"{path}/".startswith(f"{self.prefix}/"):  # the router would take it for the prefix
            path = self.prefix + path
        await self.app({**scope, "path": path, "raw_path": path.encode(), "root_path": self.prefix}, receive, send)


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the address of the settings. SettingsError when it is taken or not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port} ({os.strerror(error.errno or 0)}): "
            f"stop what uses it, or set {ENVIRONMENT}PORT or {ENVIRONMENT}HOST"
        ) from None


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Work in the background, ended with the block."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _tls_of(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    from hxmlops_sharing.tls import tls_of  # its libraries take a tenth of a second to import

    return tls_of(settings)


def _renew(context: ssl.SSLContext, settings: Settings) -> Coroutine[None, None, None]:
    from hxmlops_sharing.tls import renew

    return renew(context, settings)


def _keep_freed_memory() -> None:
    """Blocks of a MiB come and go: glibc, where it is, need not give each back and have the next one zeroed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, size in MALLOC.items():
            mallopt(parameter, size)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
