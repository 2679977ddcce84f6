"""What both APIs do with versions that are there: records, bytes, deletion, aliases, evidence, receipts, audit."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from hxmlops_sharing import audit
from hxmlops_sharing.access import Caller
from hxmlops_sharing.evidence_gate import examine
from hxmlops_sharing.incoming import Received
from hxmlops_sharing.openapi import bytes_answer, json_body, problems_of
from hxmlops_sharing.problems import Problem, validated
from hxmlops_sharing.records import (
    AliasChange,
    Aliases,
    AliasRecord,
    AuditLines,
    Kind,
    Verified,
)
from hxmlops_sharing.registry import Alias, Records, Version
from hxmlops_sharing.service import (
    Admin,
    DigestInPath,
    Identifier,
    Reader,
    RequestId,
    Service,
    ServiceHere,
    VersionOrLatest,
    Writer,
    noted,
)
from hxmlops_sharing.uploads import json_object

type Answer = Callable[[Request, Service, Caller, Version], Awaitable[Response]]
"""Answers a version's bytes."""

JsonObject = Annotated[dict[str, Any], Depends(json_object)]
AliasName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ArtifactName = Annotated[str, Query(min_length=1, max_length=255)]
Limit = Annotated[int, Query(ge=1, le=10_000)]
After = Annotated[int, Query(ge=0, le=2**31 - 1)]
_REVISION = re.compile(r'"(\d{1,9})"')


def version_routes(
    kind: Kind, record: type[BaseModel], records: type[BaseModel], media_type: str, answer: Answer
) -> APIRouter:
    """Routes over the versions of a kind: `record` and `records` are what it answers as JSON, `answer` the bytes."""
    router = APIRouter()
    word = kind.word
    as_bytes: dict[str, Any] = {"response_class": Response, "responses": bytes_answer(media_type)}

    @router.head(f"/{word}/by_id/{{identifier}}", include_in_schema=False)
    @router.get(f"/{word}/by_id/{{identifier}}", **as_bytes)
    async def download(
        request: Request,
        identifier: Identifier,
        service: ServiceHere,
        caller: Reader,
        version: VersionOrLatest = "latest",
    ) -> Response:
        """The bytes of a version."""
        return await answer(request, service, caller, await service.registry.find(identifier, version, caller))

    @router.head("/artifacts/{sha256}", include_in_schema=False)
    @router.get("/artifacts/{sha256}", **as_bytes)
    async def download_artifact(
        request: Request, sha256: DigestInPath, service: ServiceHere, caller: Reader
    ) -> Response:
        """The bytes of the version with this digest, which of a dataset is that of {dataset: …, dataModel: …}."""
        return await answer(request, service, caller, await service.registry.find_by_digest(sha256, caller))

    @router.head(f"/{word}/{{identifier}}/data", include_in_schema=False)
    @router.get(f"/{word}/{{identifier}}/data", response_model=record)
    async def read_record(
        identifier: Identifier,
        service: ServiceHere,
        caller: Reader,
        request_id: RequestId,
        version: VersionOrLatest = "latest",
    ) -> Response:
        """The record of a version."""
        row = await service.registry.find(identifier, version, caller)
        noted(service, caller, "read", request_id, identifier=row.id, name=row.name, version=row.version)
        return JSONResponse(kind.record(row))

    @router.get(f"/{word}/{{identifier}}/versions", response_model=records)
    async def read_versions(
        identifier: Identifier, service: ServiceHere, caller: Reader, request_id: RequestId
    ) -> Response:
        """All versions of the name that this one has, the latest first."""
        rows = await service.registry.versions(identifier, caller)
        noted(service, caller, "catalogue", request_id, name=rows[0].name)
        return JSONResponse({f"{word}s": [kind.record(row) for row in rows]})

    @router.get(f"/{word}/{{identifier}}/evidence", response_model=Verified)
    async def read_evidence(
        identifier: Identifier, service: ServiceHere, caller: Reader, request_id: RequestId
    ) -> Response:
        """What the server verified when the version was uploaded."""
        row = await service.registry.find(identifier, None, caller)
        noted(service, caller, "read", request_id, identifier=row.id, name=row.name, version=row.version)
        return JSONResponse({"verified": row.verified})

    @router.delete(f"/{word}/{{identifier}}", response_model=record)
    async def delete(
        identifier: Identifier, version: VersionOrLatest, service: ServiceHere, caller: Admin, request_id: RequestId
    ) -> Response:
        """Delete a version; answers the record that was. Within the grace period it can be restored."""
        return JSONResponse(kind.record(await service.registry.delete(identifier, version, caller, request_id)))

    @router.post(f"/{word}/{{identifier}}/restore", response_model=record, responses=problems_of(409))
    async def restore(identifier: Identifier, service: ServiceHere, caller: Admin, request_id: RequestId) -> Response:
        """Undo a deletion; answers the record."""
        return JSONResponse(kind.record(await service.registry.restore(identifier, caller, request_id)))

    return router


router = APIRouter()


@router.get("/aliases", response_model=Aliases)
async def read_aliases(name: ArtifactName, service: ServiceHere, caller: Reader, request_id: RequestId) -> Response:
    """The aliases that a name has now."""
    rows = await service.registry.aliases(name, caller)
    noted(service, caller, "catalogue", request_id, name=name)
    return JSONResponse({"aliases": [_alias(row) for row in rows]})


@router.get("/aliases/{alias}", response_model=Aliases)
async def read_alias(
    alias: AliasName, name: ArtifactName, service: ServiceHere, caller: Reader, request_id: RequestId
) -> Response:
    """The history of an alias, what it is now first."""
    rows = await service.registry.alias_history(name, alias, caller)
    noted(service, caller, "catalogue", request_id, name=name)
    return JSONResponse({"aliases": [_alias(row) for row in rows]}, headers={"ETag": f'"{rows[0].revision}"'})


SET_ALIAS = {"responses": problems_of(409, 412, 413, 415)}
IfMatch = Annotated[
    str | None,
    Header(
        description='the revision that the alias has now, as `"2"`', json_schema_extra={"pattern": r'^("\d{1,9}"|\*)$'}
    ),
]
IfNoneMatch = Annotated[str | None, Header(description="`*`: the alias must be new")]


@router.put(
    "/aliases/{alias}",
    response_model=AliasRecord,
    openapi_extra=json_body(AliasChange),
    **SET_ALIAS,  # type: ignore[arg-type]
)
async def set_alias(
    alias: AliasName,
    name: ArtifactName,
    service: ServiceHere,
    caller: Writer,
    body: JsonObject,
    request_id: RequestId,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Let an alias such as `champion` name a version."""
    identifier = validated(AliasChange, body).identifier
    expected = _expected(if_match, if_none_match)
    row = await service.registry.set_alias(name, alias, identifier, expected, caller, request_id)
    return JSONResponse(_alias(row), headers={"ETag": f'"{row.revision}"'})


@router.delete("/aliases/{alias}", response_model=AliasRecord, **SET_ALIAS)  # type: ignore[arg-type]
async def remove_alias(
    alias: AliasName,
    name: ArtifactName,
    service: ServiceHere,
    caller: Writer,
    request_id: RequestId,
    if_match: IfMatch = None,
) -> Response:
    """Let an alias name no version any more; its history stays."""
    row = await service.registry.set_alias(name, alias, None, _expected(if_match, None), caller, request_id)
    return JSONResponse(_alias(row), headers={"ETag": f'"{row.revision}"'})


@router.get("/receipts/{number}", responses=problems_of(409))
async def read_receipt(number: Identifier, service: ServiceHere, caller: Reader) -> dict[str, Any]:
    """The signed receipt of a download of the caller's, as its answer's X-HXMLOps-Receipt names it (DSSE)."""
    if service.signer is None:
        raise Problem(404, "no-receipts", "receipts are off: this server has no signing key")
    async with service.database.read() as connection:
        began, ended = await audit.pair(connection, number)
    if began is None or began["action"] != "download" or not (began["client"] == caller.client or caller.may("admin")):
        raise Problem(404, "not-found", f"there is no receipt {number} for {caller.client}")
    if ended is None:
        raise Problem(409, "not-ended", f"download {number} has not ended: ask again when it has", {"Retry-After": "1"})
    return dict(service.signer.receipt(began, ended))


@router.get("/audit", response_model=AuditLines)
async def read_audit(
    service: ServiceHere, caller: Admin, request_id: RequestId, after: After = 0, limit: Limit = 1000
) -> Response:
    """Lines of the audit behind number `after`, oldest first; the whole with `audit export`."""
    async with service.database.read() as connection:
        lines = [line async for line in audit.entries(connection, after=after, limit=limit)]
    noted(service, caller, "read-audit", request_id)
    return JSONResponse({"lines": lines})


async def register(
    service: Service, metadata: Mapping[str, Any], contents: Mapping[str, Any], files: Sequence[Received],
    caller: Caller, request_id: str,
) -> Version:  # fmt: skip
    """Register an upload that has arrived whole, when its evidence is what this server asks for (422 otherwise)."""
    verified = await examine(service.settings, service.store, [file.content for file in files], metadata)
    return await service.registry.add(metadata, contents, files, caller, request_id, verified=verified)


def catalogue_of(request: Request, kind: Kind, found: Records, limit: int | None) -> Response:
    """The answer of a catalogue; its header fields name the next page, when there may be one. Problem 404 for none."""
    if not found.count:
        raise Problem(404, "not-found", f"no {kind.word} matches")
    headers = {}
    if limit is not None and found.count == limit:
        url = request.url.include_query_params(after=found.last)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return InParts([f'{{"{kind.word}s":['.encode(), *found.parts, b"]}"], headers)


class InParts(Response):
    """JSON in parts, which are not put together: it may be large."""

    media_type = "application/json"

    def __init__(self, parts: Sequence[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(sum(map(len, parts)))})
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def hand_over(
    request: Request, service: Service, caller: Caller, row: Version, sha256s: Sequence[str]
) -> "HandOver":
    """Where the bytes of these digests are, and the bookkeeping of a download of a version."""
    return HandOver(
        request, service, caller, row, dict(zip(sha256s, await service.registry.segments(*sha256s), strict=True))
    )


class HandOver:
    """One download, on record from before its first byte to its end."""

    def __init__(
        self, request: Request, service: Service, caller: Caller, row: Version, segments: Mapping[str, Any]
    ) -> None:
        self.segments = segments
        self._request = request
        self._service = service
        self._line = service.registry.line("download", row, caller, request.state.request_id, _about(caller))
        self._began: audit.Entry | None = None

    async def begin(self) -> dict[str, str]:
        """To be called before the first byte leaves; gives header fields for the answer."""
        self._began = await self._service.audit.write(self._line)
        return {"X-HXMLOps-Receipt": f"{self._service.settings.path_prefix}/api/v1/receipts/{self._began.id}"}

    async def end(self, sent: int, complete: bool, ranges: str = "") -> None:
        """To be called when no more bytes will leave: how many did, and whether all that were asked for."""
        if self._began is not None:
            pairs = [[int(end) for end in each.split("-")] for each in ranges.split(",") if each]
            detail = {**self._line.detail, "bytes": sent, "complete": complete, "ranges": pairs}
            line = {**asdict(self._line), "action": "delivered", "detail": detail, "refers_to": self._began.id}
            await self._service.audit.write(audit.Line(**line))


def _about(caller: Caller) -> dict[str, Any]:
    return {name: value for name, value in (("purpose", caller.purpose), ("recipient", caller.recipient)) if value}


def _expected(if_match: str | None, if_none_match: str | None) -> int | None:
    if if_none_match is not None and if_none_match.strip() == "*":
        return 0
    if if_match is None or if_match.strip() == "*":
        return None
    match = _REVISION.fullmatch(if_match.strip())
    if match is None:
        raise Problem(400, "malformed", 'If-Match should be a revision in quotes, as "2"')
    return int(match[1])


def _alias(row: Alias) -> dict[str, Any]:
    return {
        "alias": row.alias,
        "name": row.name,
        "identifier": row.identifier,
        "revision": row.revision,
        "setAt": row.set_at,
        "setBy": row.set_by,
    }
