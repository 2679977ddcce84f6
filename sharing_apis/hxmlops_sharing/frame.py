"""What surrounds every request: its id, one log line, figures, refusals on record, an answer whatever happens."""

import re
import secrets
import time

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hxmlops_sharing import problems
from hxmlops_sharing.audit import Line
from hxmlops_sharing.metrics import NO_ROUTE, route_of
from hxmlops_sharing.service import Service

_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
REFUSALS = frozenset({400, 401, 403, 404, 408, 409, 411, 412, 413, 415, 416, 422, 423, 429, 431, 460, 507})
UNREAD = "(unread)"
"""Stands for the route of what never came as far as one."""

log = structlog.get_logger("hxmlops_sharing")


class RequestFrame:
    """ASGI middleware. Also takes one trailing slash from the path, so that both forms reach the same route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service: Service = scope["app"].state.service
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        path = scope["path"]
        if path.endswith("/") and path != "/":
            scope = {**scope, "path": path[:-1]}
        started = time.perf_counter()
        status = sent = received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def observed(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {
                    **message,
                    "headers": [*message["headers"], (b"x-request-id", request_id.encode())],
                }
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            if "\0" in path or b"%00" in scope["query_string"]:  # not every database has a place for it
                refusal = problems.Problem(400, "malformed", "the URL has a NUL in it")
                await problems.respond(refusal, request_id)(scope, counted, observed)
            else:
                await self.app(scope, counted, observed)
        except ClientDisconnect:
            pass  # status 0 in the log
        except Exception as error:
            answer = problems.of_exception(error)
            if answer.status_code == 500:
                log.error("unexpected_error", request_id=request_id, exc_info=True)
            if status == 0:
                await problems.respond(answer, request_id)(scope, counted, observed)
        finally:
            seconds = time.perf_counter() - started
            route = route_of(scope)
            client = scope["state"].get("client")
            service.metrics.requests(scope["method"], route, status, seconds)
            service.metrics.received(received)
            service.metrics.sent(sent)
            if route != NO_ROUTE:
                _note_refusal(service, client, status, scope["method"][:16], route, request_id)
            log.info(
                "request",
                request_id=request_id,
                client=client,
                method=scope["method"],
                path=path,
                status=status,
                bytes_received=received,
                bytes_sent=sent,
                duration_ms=round(seconds * 1000, 1),
            )


def note_unread(service: Service, status: int, request_id: str) -> None:
    """Count, audit and log a refusal that was answered before the request was read: broken, slow or one too many."""
    service.metrics.requests("", UNREAD, status, 0)
    _note_refusal(service, None, status, "", UNREAD, request_id)
    log.info("unread", request_id=request_id, status=status)


def _note_refusal(service: Service, client: str | None, status: int, method: str, route: str, request_id: str) -> None:
    """Have the audit say soon that this status, if it is one, was a refusal."""
    if status in REFUSALS:
        detail = {"status": status, "method": method, "route": route}
        service.audit.note(Line("refused", client or "anonymous", detail=detail, request_id=request_id))


def _request_id(scope: Scope) -> str:
    """The id that the client gave, if it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GOOD_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)
