"""Bytes on their way out: ETag, If-None-Match, HEAD and single ranges, streamed from the store (RFC 9110)."""

import re
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from hxmlops_sharing.problems import Problem
from hxmlops_sharing.store import Store
from hxmlops_sharing.zips import Piece

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


async def answer_bytes(
    request: Request, store: Store, pieces: Sequence[Piece], *, sha256: str, media_type: str,
    filename: str | None = None,
) -> Response:  # fmt: skip
    """Answer the pieces one after another as the bytes of the artifact `sha256`."""
    size = sum(piece.size for piece in pieces)
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": media_type,
        "X-Content-Type-Options": "nosniff",
    }
    if filename is not None:
        headers["Content-Disposition"] = attachment(filename)
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers={"ETag": etag})
    await _check_store(store, pieces)
    start, stop, status = 0, size, 200
    if request.method == "GET" and request.headers.get("if-range", etag) == etag:
        wanted = parse_range(request.headers.get("range", ""), size)
        if wanted is not None:
            start, stop, status = *wanted, 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_read(store, pieces, start, stop), status, headers)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and stop (exclusive) of a single byte range; None for what may be ignored. Problem 416."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Problem(
            416, "range", f"there are {size} bytes, none of them in this range",
            {"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return start, stop


def attachment(filename: str) -> str:
    """Content-Disposition with any name: what a quoted string cannot carry goes as RFC 8187 has it."""
    plain = re.sub(r"[^A-Za-z0-9._ +-]", "_", filename)
    if plain == filename and " " not in plain:
        return f"attachment; filename={plain}"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _matches(if_none_match: str, etag: str) -> bool:
    candidates = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return etag in candidates or "*" in candidates


async def _check_store(store: Store, pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        if piece.sha256 and await store.size(piece.sha256) != piece.size:
            raise Problem(500, "damaged", "the bytes of this version are lost: tell the owner of this server")


async def _read(store: Store, pieces: Sequence[Piece], start: int, stop: int) -> AsyncIterator[bytes]:
    """Bytes `start` to `stop` (exclusive) of the pieces put together."""
    offset = 0
    for piece in pieces:
        first, last = max(start - offset, 0), min(stop - offset, piece.size)
        offset += piece.size
        if first >= last:
            continue
        if piece.sha256:
            async for block in store.read(piece.sha256, first, last):
                yield block
        else:
            yield piece.data[first:last]
