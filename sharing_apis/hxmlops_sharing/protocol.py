"""HTTP/1.1 as uvicorn speaks it, with what keeps slow, greedy or broken clients from holding a server up.

A head has HEAD_S to arrive and limits on its size; a body, and a client's reading of an answer, must get on. Nobody
gets more than CONNECTIONS and REQUESTS at once. Refusals are RFC 9457 problems, as the routes' are.
"""

import asyncio
import http
import re
import secrets
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hxmlops_sharing.problems import Problem, respond

HEAD_S = 20
"""Seconds for the request line and headers to arrive."""
HEAD_BYTES = 32 << 10
HEADERS = 100
PROGRESS_S = 60
"""Seconds within which a client must send PROGRESS_BYTES of a body, or take any of an answer."""
PROGRESS_BYTES = 4096
CONNECTIONS = 4096
REQUESTS = 256
"""At once; each upload holds some blocks in memory."""
ALWAYS = ("/live", "/health")
"""Answered however busy the server is, or it would be taken for dead."""

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?")


class Protocol(HttpToolsProtocol):
    """One connection."""

    def refused(self, status: int, request_id: str) -> None:
        """Called for each refusal of which the application knows nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal: tuple[int, str, str] | None = None
        self._in_head = self._in_message = self._body_came = False
        self._head_bytes = self._headers = 0
        self._stalled: asyncio.TimerHandle | None = None
        self._head_late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_S, self._head_is_late)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, "busy", "too many connections: try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_has_come()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head_late is None and (self.cycle is None or self.cycle.response_complete):
            self._head_late = self.loop.call_later(HEAD_S, self._head_is_late)
        went_on, self._body_came = self._in_message, False
        super().data_received(data)
        if went_on and self._in_message and not self._body_came:  # the parser gathers a header, or a trailer, endlessly
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, "headers-too-large", f"request line and headers of more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = self._headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > HEADERS:
            self._refusal = (431, "headers-too-large", f"more than {HEADERS} headers")
            raise ValueError("headers")  # the parser stops and `send_400_response` is called
        if self._in_head:  # a trailer is no header: nobody in front has looked at it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES:
            self._refusal = (431, "headers-too-large", f"request line and headers of more than {HEAD_BYTES} bytes")
            raise ValueError("headers")
        version, hosts = self.parser.get_http_version(), [value for name, value in self.headers if name == b"host"]
        if version not in ("1.0", "1.1") or len(hosts) > 1 or (version == "1.1" and not hosts):
            raise ValueError("version or Host")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise ValueError("Host")
        self._head_has_come()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's words)
        self._refuse(*(self._refusal or (400, "bad-request", "this is not HTTP/1.1 as RFC 9112 has it")))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that does not read
        super().timeout_keep_alive_handler()

    def _head_has_come(self) -> None:
        self._in_head = False
        if self._head_late is not None:
            self._head_late.cancel()
            self._head_late = None

    def _head_is_late(self) -> None:
        self._head_late = None
        self._refuse(408, "timeout", f"no request within {HEAD_S} s")

    def _watch(self, waiting: int) -> None:
        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now < waiting:
                self._watch(now)
            else:
                self.transport.abort()

        self._stalled = self.loop.call_later(PROGRESS_S, look)

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        """Answer without the application and hang up; only hang up where an answer is under way."""
        self._head_has_come()
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        request_id = _new_id()
        answer = respond(Problem(status, slug, detail, {"Retry-After": "1"} if status == 503 else None), request_id)
        self.refused(status, request_id)
        head = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode(), b"connection: close"]
        head += [b": ".join(header) for header in (*self.server_state.default_headers, *answer.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()


class Admission:
    """ASGI application around another: no more than REQUESTS at once, and no body that hardly comes.

    `refused` is called with status and request id of each that is one too many.
    """

    def __init__(self, app: ASGIApp, refused: Callable[[int, str], None]) -> None:
        self.app = app
        self.refused = refused
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.requests >= REQUESTS and not scope["path"].rstrip("/").endswith(ALWAYS):
            busy = Problem(
                503, "busy", "too many requests at once: try again later", {"Retry-After": "1", "Connection": "close"}
            )
            request_id = _new_id()
            self.refused(503, request_id)
            await respond(busy, request_id)(scope, receive, send)
            return
        self.requests += 1
        try:
            await self.app(scope, _Body(receive).receive, send)
        finally:
            self.requests -= 1


class _Body:
    """What a client sends. Problem 408 when it sends less than PROGRESS_BYTES in PROGRESS_S of being waited for."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True
        self._waited = 0.0
        self._bytes = 0

    async def receive(self) -> Message:
        if not self._more:
            return await self._receive()
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(max(PROGRESS_S - self._waited, 0)):
                message = await self._receive()
        except TimeoutError:
            raise self._too_slow() from None
        self._waited += clock() - started
        self._bytes += len(message.get("body", b""))
        if self._bytes >= PROGRESS_BYTES:
            self._waited, self._bytes = 0.0, 0
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    def _too_slow(self) -> Problem:
        return Problem(
            408,
            "timeout",
            f"less than {PROGRESS_BYTES} bytes of the body within {PROGRESS_S} s",
            {"Connection": "close"},
        )


def _new_id() -> str:
    return secrets.token_hex(8)
