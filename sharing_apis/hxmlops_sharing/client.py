"""Client of the sharing APIs: bodies streamed and resumed, digests checked, every failure one line (SharingError).

The same for asyncio is in `async_client`.
"""

import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate

import httpx2 as httpx

from hxmlops_sharing.calls.api import RESUMABLE_FROM, Calls, Record
from hxmlops_sharing.calls.downloads import Downloaded, Progress
from hxmlops_sharing.calls.errors import SharingError, WrongBytes
from hxmlops_sharing.calls.link import Link
from hxmlops_sharing.calls.progress import progress_bar
from hxmlops_sharing.calls.wire import Body, Peer, Reply, headers_of, peer_of, timeout_of

__all__ = ["Downloaded", "Progress", "Record", "SharingClient", "SharingError", "WrongBytes", "progress_bar"]


class BlockingWire:
    """Waits where it stands, so that a coroutine over it runs from its beginning to its end at once."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._clients = {True: httpx.Client(**peer.options(at_home=True))}

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, at_home: bool, read_s: float
    ) -> AsyncIterator[Reply]:
        if at_home not in self._clients:
            self._clients[at_home] = httpx.Client(**self._peer.options(at_home=at_home))
        with self._clients[at_home].stream(
            method,
            url,
            headers=headers_of(headers, body),
            content=None if body is None else _sending(body),
            timeout=timeout_of(read_s),
        ) as response:
            yield Reply(response.status_code, response.headers, _each(response.iter_raw()))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def work[T](self, function: Callable[[], T]) -> T:
        return function()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def _blocking[**P, T](
    call: Callable[Concatenate[Calls, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SharingClient", P], T]:
    """The call as a method that returns when it is done."""

    @functools.wraps(call)
    def method(client: "SharingClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        coroutine = call(client.calls, *args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        raise AssertionError("a BlockingWire never waits")

    return method


class SharingClient:
    """One sharing API. `url` is its root, as in `https://host:8080`; `ca` a PEM file instead of the system's.

    `certificate` and `key` are PEM files for an API that asks for them (mTLS). Files of `resumable_from` bytes are
    uploaded resumably where the API can. A body that stalls for `stall_s` seconds counts as broken off.
    """

    def __init__(
        self,
        url: str,
        token_file: Path | None,
        ca: Path | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        resumable_from: int = RESUMABLE_FROM,
        stall_s: float = 60,
    ) -> None:
        peer = peer_of(url, token_file, ca, certificate, key)
        self._wire = BlockingWire(peer)
        self.calls = Calls(Link(peer, self._wire, stall_s), resumable_from)
        self.url = peer.url

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> "SharingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    catalog = _blocking(Calls.catalog)
    record = _blocking(Calls.record)
    versions = _blocking(Calls.versions)
    aliases = _blocking(Calls.aliases)
    set_alias = _blocking(Calls.set_alias)
    set_characteristics = _blocking(Calls.set_characteristics)
    upload_model = _blocking(Calls.upload_model)
    upload_dataset = _blocking(Calls.upload_dataset)
    download_artifact = _blocking(Calls.download_artifact)
    download_dataset = _blocking(Calls.download_dataset)
    receipt = _blocking(Calls.receipt)


def _sending(body: Body) -> Iterator[bytes]:
    for block in body.blocks:
        yield block
        body.sent(len(block))


async def _each(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
