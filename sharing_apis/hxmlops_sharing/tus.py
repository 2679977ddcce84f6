"""The tus protocol, version 1.0.0 (tus.io): resumable uploads of files, which a POST of JSON registers as versions."""

import base64
import binascii
import hashlib
import re
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hxmlops_sharing.digests import structured
from hxmlops_sharing.files import Checksum, File
from hxmlops_sharing.openapi import problems_of
from hxmlops_sharing.problems import Problem, respond
from hxmlops_sharing.service import RequestId, ServiceHere, Writer

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
ALGORITHMS = ("sha1", "sha256")
BYTES = "application/offset+octet-stream"

_PATH = re.compile(r"/api/v1/files(/|$)")
_NUMBER = re.compile(r"[0-9]{1,18}")


def _header(name: str, pattern: str, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "schema": {"type": "string", "pattern": pattern}}


_RESUMABLE = _header("Tus-Resumable", r"^1\.0\.0$")
_OFFSET = _header("Upload-Offset", "^[0-9]{1,18}$")
_LENGTH = _header("Upload-Length", "^[0-9]{1,18}$")
_CHECKSUM = _header("Upload-Checksum", "^(sha1|sha256) [A-Za-z0-9+/]+=*$", required=False)
_METADATA = _header("Upload-Metadata", "^[!-~]+( [A-Za-z0-9+/]*=*)?(,[!-~]+( [A-Za-z0-9+/]*=*)?)*$", required=False)
_BODY = {BYTES: {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(responses=problems_of(400, 401, 403, 412, 429, 503))


class TusFrame:
    """ASGI middleware: what tus wants of every request and answer below `/api/v1/files`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _PATH.search(scope["path"]):
            await self.app(scope, receive, send)
            return

        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"tus-resumable", VERSION.encode())]}
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        overriding = headers.get(b"x-http-method-override", "").upper()
        if overriding and not (scope["method"] == "POST" and overriding in ("PATCH", "DELETE")):
            # whoever is in front would not agree with us on where the answer to a HEAD ends
            problem = Problem(400, "malformed", "X-HTTP-Method-Override is for a POST that means PATCH or DELETE")
            await respond(problem, scope["state"]["request_id"])(scope, receive, versioned)
            return
        if overriding:
            scope["method"] = overriding
        if scope["method"] != "OPTIONS" and headers.get(b"tus-resumable") != VERSION:
            problem = Problem(412, "tus-version", f"Tus-Resumable should be {VERSION}", {"Tus-Version": VERSION})
            await respond(problem, scope["state"]["request_id"])(scope, receive, versioned)
        else:
            await self.app(scope, receive, versioned)


@router.options("/files", status_code=204, responses={204: {"description": "what tus is here"}})
@router.options("/files/{identifier}", status_code=204, include_in_schema=False)
async def about(service: ServiceHere) -> Response:
    """The protocol's version and extensions and the largest file. Answered without a token."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(service.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/files",
    status_code=201,
    responses={201: {"description": "Location is the file's URL"}, **problems_of(409, 413, 415, 460, 507)},
    openapi_extra={
        "parameters": [_RESUMABLE, _LENGTH, _METADATA, _CHECKSUM],
        "requestBody": {"required": False, "content": _BODY},
    },
)
async def create(request: Request, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Begin a file of Upload-Length bytes; a body of `application/offset+octet-stream` is its first bytes."""
    if "upload-defer-length" in request.headers:
        raise Problem(400, "malformed", "Upload-Defer-Length is not supported: send Upload-Length")
    size = _number(request, "upload-length")
    metadata = _metadata(request)
    with_bytes = request.headers.get("content-type", "") == BYTES
    if not with_bytes and request.headers.get("content-length", "0") != "0":
        raise _unsupported()
    checksum, length = _checksum(request), _length(request)
    if with_bytes and length is not None and length > size:
        raise Problem(413, "too-large", f"a body of {length} bytes for a file of {size}")
    file = await service.files.create(size, metadata, caller, request_id)
    if with_bytes:
        try:
            file = await service.files.receive(
                file.id, caller, 0, request.stream(), length=length, checksum=checksum
            )  # fmt: skip
        except Problem:
            await service.files.delete(file.id, caller, request_id)  # its client has not heard of it
            raise
    location = f"{service.settings.path_prefix}/api/v1/files/{file.id}"
    return Response(status_code=201, headers={"Location": location, **_state(file)})


@router.head("/files/{identifier}", include_in_schema=False)
async def look(identifier: str, service: ServiceHere, caller: Writer) -> Response:
    """How much of the file is here."""
    file = await service.files.look(identifier, caller)
    headers = {"Upload-Length": str(file.size), "Cache-Control": "no-store", **_state(file)}
    if file.upload_metadata:
        headers["Upload-Metadata"] = file.upload_metadata
    return Response(headers=headers)


@router.patch(
    "/files/{identifier}",
    status_code=204,
    responses={
        204: {"description": "Upload-Offset is how much is here"},
        **problems_of(404, 409, 410, 413, 415, 423, 460, 507),
    },
    openapi_extra={
        "parameters": [_RESUMABLE, _OFFSET, _CHECKSUM],
        "requestBody": {"required": True, "content": _BODY},
    },
)
async def add(request: Request, identifier: str, service: ServiceHere, caller: Writer) -> Response:
    """Add bytes at Upload-Offset, which is where the file ends."""
    if request.headers.get("content-type", "") != BYTES:
        raise _unsupported()
    file = await service.files.receive(
        identifier,
        caller,
        _number(request, "upload-offset"),
        request.stream(),
        length=_length(request),
        checksum=_checksum(request),
    )
    return Response(status_code=204, headers=_state(file))


@router.delete(
    "/files/{identifier}",
    status_code=204,
    responses={204: {"description": "the file is no more"}, **problems_of(404, 410)},
    openapi_extra={"parameters": [_RESUMABLE]},
)
async def delete(identifier: str, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Forget the file."""
    await service.files.delete(identifier, caller, request_id)
    return Response(status_code=204)


def _state(file: File) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(file.received),
        "Upload-Expires": format_datetime(datetime.fromisoformat(file.expires_at), usegmt=True),
    }
    if file.sha256 is not None:
        headers["Repr-Digest"] = structured(file.sha256)
    return headers


def _one(request: Request, name: str) -> str | None:
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise Problem(400, "malformed", f"{name.title()} is there twice")
    return values[0] if values else None


def _number(request: Request, name: str) -> int:
    value = _one(request, name)
    if value is None or not _NUMBER.fullmatch(value):
        raise Problem(400, "malformed", f"{name.title()} should be a number of bytes")
    return int(value)


def _length(request: Request) -> int | None:
    value = request.headers.get("content-length")
    return int(value) if value is not None else None


def _checksum(request: Request) -> Checksum | None:
    value = _one(request, "upload-checksum")
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in ALGORITHMS:
        raise Problem(400, "malformed", f"Upload-Checksum should be by {' or '.join(ALGORITHMS)}")
    hashing = hashlib.new(algorithm, usedforsecurity=False)
    expected = _base64(encoded)
    if expected is None or len(expected) != hashing.digest_size:
        raise Problem(400, "malformed", f"Upload-Checksum should be `{algorithm}` and the digest in base64")
    return Checksum(hashing, expected)


def _metadata(request: Request) -> str:
    """Upload-Metadata as sent: keys, each with a value in base64 or alone."""
    value = _one(request, "upload-metadata") or ""
    keys = set()
    for pair in value.split(",") if value else []:
        key, _, encoded = pair.partition(" ")
        if not re.fullmatch(r"[!-+\--~]+", key) or key in keys or _base64(encoded) is None:
            raise Problem(400, "malformed", "Upload-Metadata should be unique keys, each with its value in base64")
        keys.add(key)
    return value


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _unsupported() -> Problem:
    return Problem(415, "unsupported-media-type", f"the body should be {BYTES}")
