"""Bodies on their way in: bytes go to the store as they arrive, texts and JSON are read within limits."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from hxmlops_sharing.multipart import FormReader
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import parse_object
from hxmlops_sharing.store import Incoming, Store

MAX_JSON = 8 << 20
OCTET_STREAM = "application/octet-stream"
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """An upload that has arrived whole: its texts by name and its files, finished, not kept yet."""

    texts: Mapping[str, str]
    files: Mapping[str, Incoming]


@contextlib.asynccontextmanager
async def form_upload(
    request: Request, store: Store, files: tuple[str, ...], *, with_crc32: bool = False
) -> AsyncIterator[Upload]:
    """A multipart form with these files. What is not kept when the context ends is discarded."""
    incoming = {name: store.receive(with_crc32=with_crc32) for name in files}
    try:
        reader = FormReader(request.headers["content-type"], incoming)
        texts = await reader.read(request.stream())
        for each in incoming.values():
            await each.finish()
        yield Upload(texts, incoming)
    finally:
        for each in incoming.values():
            await each.discard()


@contextlib.asynccontextmanager
async def raw_upload(request: Request, store: Store) -> AsyncIterator[Upload]:
    """The body as one file named `file`, the query as texts. What is not kept in the end is discarded."""
    incoming = store.receive()
    try:
        async for data in request.stream():
            await incoming.write(data)
        await incoming.finish()
        yield Upload(dict(request.query_params), {"file": incoming})
    finally:
        await incoming.discard()


def media_type(request: Request) -> str:
    """The body's media type, in small letters, without its parameters; octet-stream when none is named."""
    return request.headers.get("content-type", OCTET_STREAM).partition(";")[0].strip().lower()


def unsupported(*allowed: str) -> Problem:
    return Problem(415, "unsupported-media-type", f"the body should be {' or '.join(allowed)}")


async def json_object(request: Request) -> dict[str, Any]:
    """Dependency: the body, a JSON object. Problem 413, 415 or 422."""
    if media_type(request) not in ("application/json", "application/merge-patch+json"):
        raise unsupported("application/json")
    body = bytearray()
    async for data in request.stream():
        body.extend(data)
        if len(body) > MAX_JSON:
            raise Problem(413, "too-large", f"JSON of more than {MAX_JSON >> 20} MiB")
    try:
        value = parse_object(bytes(body))
    except ValueError:
        raise Problem(422, "invalid", "the body should be a JSON object") from None
    return dict(value) if isinstance(value, dict) else {}
