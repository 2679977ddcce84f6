"""Slow, greedy and broken clients, on raw connections."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from hxmlops_sharing import protocol

GET = b"GET /live HTTP/1.1\r\nHost: a\r\n"
POST = (
    b"POST /api/v1/model?name=churn&version=1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: %d\r\n\r\n"
)

type Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(models: httpx.Client) -> Iterator[Connect]:
    """Opens raw connections to an API."""
    with contextlib.ExitStack() as stack:

        def open_() -> socket.socket:
            address = (models.base_url.host, models.base_url.port or 80)
            return stack.enter_context(socket.create_connection(address, timeout=10))

        yield open_


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer; the server must hang up after it."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return int(first.split()[1]), headers, json.loads(body)


def refused(connection: socket.socket, status: int, slug: str) -> str:
    """The detail of a problem, after which the server hung up."""
    found, headers, problem = answer(connection)
    assert (found, problem["status"], problem["type"]) == (status, status, f"urn:hxmlops:problem:{slug}")
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    return str(problem["detail"])


def is_cut(connection: socket.socket, data: bytes) -> bool:
    """Whether the server hangs up while data is sent."""
    try:
        for _ in range(1000):
            connection.sendall(data)
            time.sleep(0.01)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("sent", [b"", b"GET /li", GET, GET + b"\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.4)
    connection = connect()
    connection.sendall(sent)
    if sent.endswith(b"\r\n\r\n"):  # a request, answered; the next one trickles
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /")
    stop = time.monotonic() + 0.35
    with contextlib.suppress(OSError):
        while time.monotonic() < stop:  # byte by byte, so that the connection is never idle
            connection.sendall(b"x" if sent else b"")
            time.sleep(0.05)
    assert refused(connection, 408, "timeout") == "no request within 0.4 s"


def test_what_is_refused_unread_is_counted_and_audited(connect: Connect, models: httpx.Client, model_host: Any) -> None:
    connection = connect()
    connection.sendall(b"garbage\r\n\r\n")
    assert refused(connection, 400, "bad-request")
    metrics = model_host.app.state.service.metrics.page().decode()
    assert 'hxmlops_sharing_requests_total{method="other",route="(unread)",status="400"} 1.0' in metrics
    for _ in range(300):  # notes are written within a second
        if lines := models.get("/api/v1/audit").json()["lines"]:
            break
        time.sleep(0.01)
    assert (lines[0]["action"], lines[0]["client"]) == ("refused", "anonymous")
    assert lines[0]["detail"] == {"status": 400, "method": "", "route": "(unread)", "count": 1}


def test_a_body_that_stops_is_not_waited_for(
    connect: Connect, models: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PROGRESS_S", 0.4)
    connection = connect()
    connection.sendall(POST % 10_000 + b"x" * 5000)
    assert refused(connection, 408, "timeout") == "less than 4096 bytes of the body within 0.4 s"
    assert models.get("/api/v1/model_catalog").status_code == 404


def test_a_body_that_trickles_is_not_waited_for(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PROGRESS_S", 0.5)
    connection = connect()
    connection.sendall(POST % 10_000)
    started = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() < started + 3:
            connection.sendall(b"x")
            time.sleep(0.05)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if connection.recv(10, socket.MSG_PEEK):
                    break
            connection.setblocking(True)
    connection.settimeout(10)
    assert time.monotonic() - started < 2
    assert refused(connection, 408, "timeout")


def test_a_slow_body_that_gets_on_is_received(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PROGRESS_S", 0.5)
    connection = connect()
    connection.sendall(POST % 40_960)
    for _ in range(10):
        connection.sendall(b"x" * 4096)
        time.sleep(0.15)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_cut_off(
    connect: Connect, models: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * (24 << 20)
    models.post(
        "/api/v1/model?name=churn&version=1", content=data, headers={"Content-Type": "application/octet-stream"}
    )
    monkeypatch.setattr(protocol, "PROGRESS_S", 0.4)
    stuck, slow = connect(), connect()
    for each in (stuck, slow):
        each.sendall(b"GET /api/v1/model/by_id/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    received = 0
    while block := slow.recv(1 << 20):
        received += len(block)
        time.sleep(0.02)
    assert received > len(data)
    time.sleep(0.5)
    assert is_cut(stuck, b"x")


def test_heads_have_limits(connect: Connect) -> None:
    one = b"X-A: " + b"a" * 1000 + b"\r\n"
    for head, said in (
        (GET + b"X-A: a\r\n" * 100 + b"\r\n", "more than 100 headers"),
        (GET + one * 40 + b"\r\n", "request line and headers of more than 32768 bytes"),
        (GET + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n", "request line and headers of more than 32768 bytes"),
        (b"GET /" + b"a" * 40_000, "request line and headers of more than 32768 bytes"),
    ):
        connection = connect()
        connection.sendall(head[:20_000])
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            connection.sendall(head[20_000:])
            if not head.endswith(b"\r\n\r\n"):
                for _ in range(20):
                    time.sleep(0.02)
                    connection.sendall(b"a" * 4000)
        assert refused(connection, 431, "headers-too-large") == said


def test_a_header_without_end_is_refused_behind_a_request_under_way(connect: Connect) -> None:
    connection = connect()
    connection.sendall(POST % 100 + b"x" * 99)
    time.sleep(0.1)
    connection.sendall(b"x" + GET + b"X-A: ")
    assert is_cut(connection, b"a" * 65536)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        GET + b"Content-Length: +1\r\n\r\nx",
        GET + b"Content-Length : 1\r\n\r\nx",
        GET + b" folded: x\r\n\r\n",
        GET + b"X-A: a\x00b\r\n\r\n",
        b"GET /live HTTP/1.1\nHost: a\n\n",
        b"POST /api/v1/model?name=a&version=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_refused(connect: Connect, request_: bytes) -> None:
    connection = connect()
    connection.sendall(request_)
    assert refused(connection, 400, "bad-request") == "this is not HTTP/1.1 as RFC 9112 has it"


def test_no_more_than_so_many_requests_at_once(
    connect: Connect, models: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUESTS", 3)
    uploads = [connect() for _ in range(3)]
    for number, each in enumerate(uploads):
        each.sendall((POST % 10).replace(b"version=1", b"version=%d" % number) + b"x")
    time.sleep(0.3)
    busy = models.get("/api/v1/model_catalog")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert busy.json()["type"] == "urn:hxmlops:problem:busy"
    assert models.get("/live").status_code == 200
    for each in uploads:
        each.sendall(b"x" * 9)
        assert each.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert models.get("/api/v1/model_catalog").status_code == 200


def test_no_more_than_so_many_connections(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [connect() for _ in range(4)]
    time.sleep(0.2)
    monkeypatch.setattr(protocol, "CONNECTIONS", 4)
    assert refused(connect(), 503, "busy") == "too many connections: try again later"
    for each in held:
        each.close()
    time.sleep(0.2)
    connection = connect()
    connection.sendall(GET + b"Connection: close\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_many_slow_clients_do_not_keep_others_waiting(connect: Connect, models: httpx.Client) -> None:
    slow = [connect() for _ in range(150)]
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            for each in slow:
                with contextlib.suppress(OSError):
                    each.sendall(b"G")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        started = time.monotonic()
        for _ in range(20):
            assert models.get("/live").status_code == 200
        assert time.monotonic() - started < 5
    finally:
        stop.set()
        thread.join()
