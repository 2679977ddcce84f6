"""`/metrics` on an address of its own, in a thread: it answers even when the event loop has much to do."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from hxmlops_sharing.metrics import Metrics
from hxmlops_sharing.settings import ENVIRONMENT, Settings, SettingsError

REFRESH_S = 5.0
"""Seconds to wait for figures from the database; without them the last ones are shown."""

type Refresh = Callable[[], Awaitable[None]]


@contextlib.contextmanager
def listening(settings: Settings, metrics: Metrics, refresh: Refresh) -> Iterator[int | None]:
    """Answer Prometheus until the block ends; gives the port, None when metrics are off. SettingsError.

    `refresh` is run in the running event loop before each answer.
    """
    if settings.metrics_port is None:
        yield None
        return
    loop = asyncio.get_running_loop()

    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # of a client that says nothing
        protocol_version = "HTTP/1.1"
        server_version = sys_version = ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"only /metrics is here\n")
                return
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(_waited(refresh), loop).result(REFRESH_S)
            self._answer(HTTPStatus.OK, CONTENT_TYPE, metrics.page())

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    with _server(settings, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics")
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


async def _waited(refresh: Refresh) -> None:
    async with asyncio.timeout(REFRESH_S):
        await refresh()


def _server(settings: Settings, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET
        daemon_threads = True
        block_on_close = False

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()

        def handle_error(self, *_arguments: Any) -> None:
            pass  # a client that left

    try:
        return Server((settings.metrics_host, settings.metrics_port or 0), handler)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.metrics_host} port {settings.metrics_port} for metrics "
            f"({os.strerror(error.errno or 0)}): stop what uses it, or set {ENVIRONMENT}METRICS_PORT "
            f"or {ENVIRONMENT}METRICS_HOST"
        ) from None
