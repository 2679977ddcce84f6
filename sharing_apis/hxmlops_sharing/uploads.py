"""Bodies on their way in: bytes go to the store as they arrive, texts and JSON are read within limits."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request

from hxmlops_sharing.access import Caller
from hxmlops_sharing.digests import declared_digest
from hxmlops_sharing.incoming import Received, Receiver
from hxmlops_sharing.multipart import MAX_TEXT, FormReader
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import parse_object

if TYPE_CHECKING:
    from hxmlops_sharing.service import Service

MAX_JSON = 8 << 20
OCTET_STREAM = "application/octet-stream"
FORM = "multipart/form-data"
JSON = "application/json"


@dataclass(frozen=True)
class Upload:
    """An upload that has arrived whole: its texts by name and its files, finished, not kept yet."""

    texts: Mapping[str, Any]
    files: Mapping[str, Received]


@contextlib.asynccontextmanager
async def form_upload(
    request: Request, receiver: Receiver, files: tuple[str, ...], *, with_crc32: bool = False
) -> AsyncIterator[Upload]:
    """A multipart form with these files. What is not kept when the context ends is discarded."""
    _check_length(request, len(files) * receiver.limit + MAX_TEXT)
    declared = declared_digest(request.headers, "content-digest", "digest")
    incoming = {name: receiver.incoming(with_crc32=with_crc32) for name in files}
    try:
        reader = FormReader(request.headers["content-type"], incoming)
        texts = await reader.read(_checked(request.stream(), declared) if declared else request.stream())
        for each in incoming.values():
            await each.finish()
        yield Upload(texts, incoming)
    finally:
        for each in incoming.values():
            await each.discard()


@contextlib.asynccontextmanager
async def raw_upload(request: Request, receiver: Receiver) -> AsyncIterator[Upload]:
    """The body as one file named `file`, the query as texts. What is not kept in the end is discarded."""
    if not {"content-length", "transfer-encoding"} & set(request.headers):
        raise Problem(411, "length-required", "the body is the file: send it with Content-Length, or in chunks")
    _check_length(request, receiver.limit)
    incoming = receiver.incoming()
    incoming.declared = declared_digest(request.headers, "content-digest", "repr-digest", "digest")
    try:
        async for data in request.stream():
            await incoming.write(data)
        await incoming.finish()
        yield Upload(dict(request.query_params), {"file": incoming})
    finally:
        await incoming.discard()


@contextlib.asynccontextmanager
async def json_upload(
    request: Request, service: "Service", caller: Caller, digests: Mapping[str, str]
) -> AsyncIterator[Upload]:
    """Files that were sent by tus before, named by members of a JSON object: member -> member with its digest."""
    texts = await json_object(request)
    for member in digests:
        if not isinstance(texts.get(member), str):
            raise Problem(422, "invalid", f"{member}: field required, the id of a file below /api/v1/files")
    declared = {member: texts.pop(digest, None) for member, digest in digests.items()}
    named = {member: texts.pop(member) for member in digests}
    received = await service.files.take(caller, named, declared)
    try:
        yield Upload(texts, received)
    finally:
        for each in received.values():
            await each.discard()


def media_type(request: Request) -> str:
    """The body's media type, in small letters, without its parameters; octet-stream when none is named."""
    return request.headers.get("content-type", OCTET_STREAM).partition(";")[0].strip().lower()


def unsupported(*allowed: str) -> Problem:
    return Problem(415, "unsupported-media-type", f"the body should be {' or '.join(allowed)}")


async def json_object(request: Request) -> dict[str, Any]:
    """Dependency: the body, a JSON object. Problem 413, 415 or 422."""
    if media_type(request) not in (JSON, "application/merge-patch+json"):
        raise unsupported(JSON)
    _check_length(request, MAX_JSON)
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


def _check_length(request: Request, limit: int) -> None:
    """Refuse before a byte is read. The server in front of us has refused lengths that are no numbers."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise Problem(413, "too-large", f"more than {limit} bytes")


async def _checked(body: AsyncIterator[bytes], declared: str) -> AsyncIterator[bytes]:
    """The same bytes; Problem 400 at their end when they are not those declared."""
    digest = hashlib.sha256()
    async for data in body:
        digest.update(data)
        yield data
    if f"sha256:{digest.hexdigest()}" != declared:
        raise Problem(400, "digest-mismatch", "the body has another digest than Content-Digest declares")
