"""Figures for Prometheus: one registry for each server. Labels are few and never come from clients."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import Scope

from hxmlops_sharing.store import Segment, Store, Writer

disable_created_metrics()  # type: ignore[no-untyped-call] # a time of its own for each counter, which nobody asks for

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_ROUTE = "(none)"
PREFIX = "hxmlops_sharing"
REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
STORE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    def __init__(self, *, kind: str, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_request_seconds", "From a request's head to the end of its answer.", ["method", "route"],
            buckets=REQUEST_S, registry=registry,
        )  # fmt: skip
        self._store = Histogram(
            f"{PREFIX}_store_seconds", "Operations of the store; of reads, until the first bytes.", ["operation"],
            buckets=STORE_S, registry=registry,
        )  # fmt: skip
        self._received = self._counter("received_bytes", "Bytes of bodies received.")
        self._sent = self._counter("sent_bytes", "Bytes of bodies sent.")
        self.collected = self._counter("collected_bytes", "Bytes that garbage collection found to be garbage.")
        self.open_uploads = self._gauge("open_uploads", "Uploads that bytes are coming for.")
        self.database_up = self._gauge("database_up", "1 when the database answers.")
        self.store_up = self._gauge("store_up", "1 when the store answers.")
        self.audit_lines = self._gauge("audit_lines", "Lines of the audit.")
        self.garbage = self._gauge("garbage_locations", "Locations of the store that wait to be removed.")
        self.versions = self._gauge("versions", "Versions that are not deleted.", "kind")
        build = self._gauge("build_info", "1; what is running is in its labels.", "kind", "version")
        build.labels(kind, version).set(1)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def requests(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request has ended. Status 0: its client left before an answer."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def received(self, size: int) -> None:
        self._received.inc(size)

    def sent(self, size: int) -> None:
        self._sent.inc(size)

    def store_seconds(self, operation: str, seconds: float) -> None:
        self._store.labels(operation).observe(seconds)

    def page(self) -> bytes:
        """All of it as Prometheus reads it (text format 0.0.4)."""
        return generate_latest(self.registry)


def route_of(scope: Scope) -> str:
    """The template of the route that a request reached, such as `/api/v1/model/{identifier}`; never its path."""
    return str(getattr(scope.get("route"), "path", None) or NO_ROUTE)


class MeasuredStore:
    """Fulfils `store.Store` by another, and measures it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.inner = store
        self._metrics = metrics

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def check(self) -> None:
        await self.inner.check()

    def writer(self) -> Writer:
        return MeasuredWriter(self.inner.writer(), self._metrics)

    async def size(self, location: str) -> int | None:
        with timed(self._metrics, "size"):
            return await self.inner.size(location)

    async def read(self, location: str, start: int, stop: int) -> AsyncIterator[bytes]:
        async with contextlib.aclosing(self.inner.read(location, start, stop)) as blocks:  # type: ignore[type-var]
            with timed(self._metrics, "read"):
                first = await anext(blocks, b"")
            yield first
            async for block in blocks:
                yield block

    async def remove(self, location: str) -> None:
        with timed(self._metrics, "remove"):
            await self.inner.remove(location)

    def list(self, *, older_than_s: float) -> AsyncIterator[Segment]:
        return self.inner.list(older_than_s=older_than_s)

    def path(self, location: str) -> Path | None:
        return self.inner.path(location)

    async def url(self, location: str, *, filename: str, media_type: str) -> str | None:
        return await self.inner.url(location, filename=filename, media_type=media_type)


class MeasuredWriter:
    """Fulfils `store.Writer`."""

    def __init__(self, writer: Writer, metrics: Metrics) -> None:
        self._writer = writer
        self._metrics = metrics

    async def write(self, block: bytes) -> None:
        with timed(self._metrics, "write"):
            await self._writer.write(block)

    async def finish(self) -> Segment:
        with timed(self._metrics, "finish"):
            return await self._writer.finish()

    async def discard(self) -> None:
        await self._writer.discard()

    def keep(self) -> None:
        self._writer.keep()


@contextlib.contextmanager
def timed(metrics: Metrics, operation: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        metrics.store_seconds(operation, time.perf_counter() - started)
