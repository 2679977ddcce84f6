"""Run one server: its parts opened, its port bound, until it is told to stop."""

import os
import signal
import socket
import sys
import time

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from hxmlops_sharing.app import create_app
from hxmlops_sharing.database import DatabaseError
from hxmlops_sharing.logs import configure_logs
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import ENVIRONMENT, Settings, SettingsError, read_settings
from hxmlops_sharing.store import StoreError
from hxmlops_sharing.tokens import TokensError

GRACE_S = 20
"""Seconds that requests under way have to end after SIGTERM."""

log = structlog.get_logger("hxmlops_sharing")


def serve() -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0, or 2 when the settings or what they name are unusable."""
    started = time.perf_counter()
    try:
        settings = read_settings()
        configure_logs()
        os.umask(0o077)  # records and bytes are for this user alone
        for stop in (signal.SIGTERM, signal.SIGINT):  # uvicorn puts its own handlers in place while it serves
            signal.signal(stop, lambda *_: sys.exit(0))
        with bind(settings) as listening:
            uvloop.run(_run(settings, listening, started))
    except (SettingsError, DatabaseError, StoreError, TokensError) as error:
        print(f"hxmlops_sharing: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(settings: Settings, listening: socket.socket, started: float) -> None:
    async with Service.open(settings) as service:
        server = server_of(create_app(service))
        host, port = listening.getsockname()[:2]
        log.info("serving", kind=settings.kind, host=host, port=port, start_s=round(time.perf_counter() - started, 3))
        await server.serve(sockets=[listening])


def server_of(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


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
