"""Bytes on their way out (RFC 9110): conditions, HEAD, ranges, digests (RFC 9530), streamed from the store."""

import asyncio
import base64
import re
import secrets
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

import anyio
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from hxmlops_sharing.problems import Problem
from hxmlops_sharing.ranges import Range, lists, parse_ranges
from hxmlops_sharing.reading import Block, Run, read_runs
from hxmlops_sharing.store import Segment, Store, StoreUnavailable
from hxmlops_sharing.zips import Piece

type Begin = Callable[[], Awaitable[Mapping[str, str]]]
"""Awaited before bytes are answered; gives more header fields."""
type End = Callable[[int, bool, str], Awaitable[None]]
"""Awaited once when no more will be sent: bytes that were, whether those are all, and the ranges (`0-9,20-29`)."""

_CHECKS_AT_ONCE = 16
_NOT_IN_NAMES = ("Cc", "Cf", "Cs", "Zl", "Zp")  # what would break a line, or show a name as another


async def answer_bytes(
    request: Request, store: Store, pieces: Sequence[Piece], *, sha256: str, media_type: str,
    filename: str | None = None, digest: str | None = None, redirect: bool = False,
    begin: Begin | None = None, end: End | None = None,
) -> Response:  # fmt: skip
    """Answer the pieces one after another as the artifact `sha256`.

    `digest` is that of the very bytes, where it is known. `redirect` sends clients to the store where it has a URL for
    them; `end` is told that nothing was sent. Problems 412, 416, 500 and 503.
    """
    etag = f'"{sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-transform", "Vary": "Authorization"}
    if not lists(request.headers.getlist("if-match") or ["*"], etag, weak=False):
        raise Problem(412, "precondition-failed", "the bytes of this version are others than If-Match names", headers)
    if lists(request.headers.getlist("if-none-match"), etag, weak=True):
        return Response(status_code=304, headers=headers)
    size = sum(piece.size for piece in pieces)
    ranges = _wanted_ranges(request, etag, size, media_type)
    await _check(store, list(_segments(pieces, ranges or [(0, size)])))
    headers |= {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    if filename is not None:
        headers["Content-Disposition"] = attachment(filename)
    if digest is not None:
        headers["Repr-Digest"] = _structured(digest)
    status, runs, more = _content(pieces, size, ranges, media_type)
    headers |= more
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    url = await _url(store, pieces, filename or sha256, media_type) if redirect else None
    begun = await begin() if begin is not None else {}
    said = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
    if url:
        if end is not None:
            await end(0, False, said)
        return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store", **begun})
    if digest is not None and status == 200:
        headers["Content-Digest"] = _structured(digest)
    return Download(store, runs, status, {**headers, **begun}, said, end)


class Download(Response):
    """Sends the runs, no faster than the client takes them; stops at once when it goes away."""

    def __init__(
        self, store: Store, runs: Sequence[Run], status: int, headers: Mapping[str, str], ranges: str, end: End | None
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._store = store
        self._runs = runs
        self._ranges = ranges
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        sent, complete = 0, False
        blocks = read_runs(self._store, self._runs)
        try:
            with anyio.CancelScope() as until_gone:
                watcher = asyncio.ensure_future(_watch(receive, until_gone.cancel))
                try:
                    block = await _first(blocks)
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    while block is not None:
                        await send({"type": "http.response.body", "body": block, "more_body": True})
                        sent += len(block)
                        await asyncio.sleep(0)  # a client that is faster than we are leaves others their turn
                        block = await anext(blocks, None)
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    complete = True
                finally:
                    watcher.cancel()
        finally:
            await blocks.aclose()
            if self._end is not None:
                await self._end(sent, complete, self._ranges)


def attachment(filename: str) -> str:
    """Content-Disposition with any name: what a quoted string cannot carry goes as RFC 8187 has it."""
    harmless = "".join("_" if unicodedata.category(each) in _NOT_IN_NAMES else each for each in filename)
    plain = re.sub(r"[^A-Za-z0-9._ +-]", "_", harmless)
    if plain == filename and " " not in plain:
        return f"attachment; filename={plain}"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(harmless, safe='')}"


async def _watch(receive: Receive, on_gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_gone()


async def _first(blocks: AsyncGenerator[Block]) -> Block | None:
    """The first block, while a client can still be told why there is none."""
    try:
        return await anext(blocks, None)
    except (EOFError, FileNotFoundError):
        raise _damaged() from None
    except (OSError, StoreUnavailable):
        raise _unavailable() from None


def _structured(sha256: str) -> str:
    """A digest as RFC 9530 writes it."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256.removeprefix('sha256:'))).decode()}:"


def _damaged() -> Problem:
    return Problem(500, "damaged", "the bytes of this version are lost: tell the owner of this server")


def _unavailable() -> Problem:
    return Problem(503, "store-unavailable", "the store does not answer now: try again later", {"Retry-After": "5"})


def _wanted_ranges(request: Request, etag: str, size: int, media_type: str) -> list[Range]:
    """The ranges to answer; none for the whole."""
    wanted, if_range = request.headers.getlist("range"), request.headers.getlist("if-range")
    if request.method != "GET" or len(wanted) != 1 or if_range not in ([], [etag]):
        return []
    overhead = len(_part_head(media_type, (size, size), size, _boundary()))
    ranges = parse_ranges(wanted[0], size, gap=overhead)
    if len(ranges) > 1 and sum(stop - start + overhead for start, stop in ranges) >= size:
        return []  # in parts it would be more than the whole
    return ranges


def _content(
    pieces: Sequence[Piece], size: int, ranges: Sequence[Range], media_type: str
) -> tuple[int, list[Run], dict[str, str]]:
    """Status, runs, and the headers that say what they are."""
    if len(ranges) > 1:
        boundary = _boundary()
        runs: list[Run] = []
        for each in ranges:
            runs += [Run(_part_head(media_type, each, size, boundary)), *_cut(pieces, each)]
        runs.append(Run(f"\r\n--{boundary}--\r\n".encode()))
        status, more = 206, {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    else:
        start, stop = ranges[0] if ranges else (0, size)
        runs = list(_cut(pieces, (start, stop)))
        status, more = 206 if ranges else 200, {"Content-Type": media_type}
        if ranges:
            more["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return status, runs, more | {"Content-Length": str(sum(len(run.data) + run.stop - run.start for run in runs))}


def _boundary() -> str:
    return secrets.token_hex(16)


def _part_head(media_type: str, part: Range, size: int, boundary: str) -> bytes:
    start, stop = part
    return (
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
    ).encode()


def _placed(pieces: Sequence[Piece]) -> Iterator[tuple[int, int, bytes, str]]:
    """What the pieces are made of: where each begins and ends in the whole, its bytes, or its location."""
    offset = 0
    for piece in pieces:
        for size, data, location in [(segment.size, b"", segment.location) for segment in piece.segments] or [
            (piece.size, piece.data, "")
        ]:
            yield offset, offset + size, data, location
            offset += size


def _cut(pieces: Sequence[Piece], part: Range) -> Iterator[Run]:
    """The runs of one range of the pieces put together."""
    for begin, end, data, location in _placed(pieces):
        start, stop = max(part[0], begin) - begin, min(part[1], end) - begin
        if start < stop:
            yield Run(location=location, start=start, stop=stop) if location else Run(data[start:stop])


def _segments(pieces: Sequence[Piece], ranges: Sequence[Range]) -> Iterator[Segment]:
    """The segments that are needed for these ranges."""
    for begin, end, _, location in _placed(pieces):
        if location and (begin == end or any(start < end and begin < stop for start, stop in ranges)):
            yield Segment(location, end - begin)


async def _check(store: Store, segments: Sequence[Segment]) -> None:
    """Problem 500 unless every segment is there as it was, 503 when that cannot be known."""
    for first in range(0, len(segments), _CHECKS_AT_ONCE):
        some = segments[first : first + _CHECKS_AT_ONCE]
        try:
            sizes = await asyncio.gather(*(store.size(segment.location) for segment in some))
        except (OSError, StoreUnavailable):
            raise _unavailable() from None
        if sizes != [segment.size for segment in some]:
            raise _damaged()


async def _url(store: Store, pieces: Sequence[Piece], filename: str, media_type: str) -> str | None:
    """The store's own URL, when all is at one location."""
    if len(pieces) != 1 or len(pieces[0].segments) != 1:
        return None
    try:
        return await store.url(pieces[0].segments[0].location, filename=filename, media_type=media_type)
    except (OSError, StoreUnavailable):
        raise _unavailable() from None
