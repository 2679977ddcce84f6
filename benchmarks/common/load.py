"""Requests over several connections, each sent when the one before is answered: how many a second, and how late.

Run as a program it reads what to do as JSON from standard input and prints the figures as JSON, so that it has a
process, and on two cores a core, of its own.
"""

import json
import random
import re
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

WARM_UP_S = 0.5
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """Answers a second, their latencies in ms, the client's share of a core, and answers that were no success."""

    rate: float
    p50_ms: float
    p99_ms: float
    client_cpu: float
    failures: int


def load(port: int, requests: Sequence[bytes], *, connections: int = 16, seconds: float = 5.0) -> Load:
    """Send these requests again and again in random order, from a process of its own. RuntimeError when any fails.

    It lasts longer than `seconds` where there are fewer answers than connections by then.
    """
    given = {"port": port, "requests": [each.decode() for each in requests], "connections": connections}
    command = [sys.executable, __file__]
    text = json.dumps(given | {"seconds": seconds})
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    figures = Load(**json.loads(done.stdout))
    if figures.failures:
        raise RuntimeError(f"{figures.failures} answers were no success: {requests[0]!r}")
    return figures


class _Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = b""
        self.whole = 0
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.answer, self.whole = b"", 0
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Whether the answer is there wholly. ConnectionError when it will never be."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("hung up")
        self.answer += data
        if not self.whole:
            end = self.answer.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self.answer, 0, end)
            if length is None:
                return self.answer.endswith(b"\r\n0\r\n\r\n")
            self.whole = end + 4 + int(length[1])
        return len(self.answer) >= self.whole


def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    clients = [_Client(port) for _ in range(connections)]
    by_number = {client.socket.fileno(): client for client in clients}
    waiting = select.epoll()
    for number in by_number:
        waiting.register(number, select.EPOLLIN)
    draw = random.Random(1).choice  # noqa: S311
    took: list[float] = []
    failures = 0
    begun, cpu_s = time.perf_counter() + WARM_UP_S, 0.0
    for client in clients:
        client.send(draw(requests))
    while (now := time.perf_counter()) < begun + seconds or len(took) < connections:
        if not cpu_s and now >= begun:
            cpu_s = time.process_time()
        for number, _ in waiting.poll(1):
            client = by_number[number]
            if client.receive():
                now = time.perf_counter()
                if now >= begun:
                    took.append(now - client.sent_at)
                failures += client.answer[9:10] != b"2"
                client.send(draw(requests))
    seconds = now - begun
    used = (time.process_time() - cpu_s) / seconds
    for client in clients:
        client.socket.close()
    slow = statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]
    return Load(len(took) / seconds, statistics.median(took) * 1000, slow * 1000, used, failures)


if __name__ == "__main__":
    spec = json.load(sys.stdin)
    figures = _run(spec["port"], [each.encode() for each in spec["requests"]], spec["connections"], spec["seconds"])
    print(json.dumps(asdict(figures)))
