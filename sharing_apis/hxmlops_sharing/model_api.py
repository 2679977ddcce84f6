"""The Model Sharing API: v1 as served, and what its published OpenAPI file adds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import JSONResponse

from hxmlops_sharing.downloads import answer_bytes
from hxmlops_sharing.openapi import bytes_answer, form_or_raw_body, json_body, problems_of, raw_body
from hxmlops_sharing.problems import Problem, validated
from hxmlops_sharing.records import (
    MODEL,
    SAME_STATUS,
    ModelChange,
    ModelMetadata,
    ModelRecord,
    Models,
)
from hxmlops_sharing.registry import Version
from hxmlops_sharing.service import (
    Admin,
    DigestInPath,
    Identifier,
    Reader,
    RequestId,
    SameVersion,
    Service,
    ServiceHere,
    VersionOrLatest,
    Writer,
    check_name,
    given,
)
from hxmlops_sharing.uploads import FORM, OCTET_STREAM, form_upload, json_object, media_type, raw_upload, unsupported
from hxmlops_sharing.zips import Piece

router = APIRouter(responses=problems_of(400, 401, 403, 404, 422, 503))
JsonObject = Annotated[dict[str, Any], Depends(json_object)]
ObjectMember = Literal["parameters", "characteristics"]

BYTES = bytes_answer(OCTET_STREAM)
UPLOAD = problems_of(409, 413, 415, 507)
JSON = problems_of(409, 413, 415)


@router.post(
    "/model", response_model=ModelRecord, responses=UPLOAD, openapi_extra=form_or_raw_body(ModelMetadata, "file")
)
async def upload_model(request: Request, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Register a version: a form, or the bytes alone with the metadata in the query."""
    match media_type(request):
        case "multipart/form-data":
            upload_context = form_upload(request, service.store, ("file",))
        case "application/octet-stream":
            upload_context = raw_upload(request, service.store)
        case _:
            raise unsupported(FORM, OCTET_STREAM)
    async with upload_context as upload:
        metadata = validated(ModelMetadata, upload.texts)
        check_name(caller, metadata.name)
        file = upload.files["file"]
        contents = {"sha256": file.content.sha256, "size": file.content.size}
        row = await service.registry.add(metadata.columns(), contents, [file], caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.head("/model_catalog", include_in_schema=False)
@router.get("/model_catalog", response_model=Models)
@router.head("/model/catalog", include_in_schema=False)
@router.get("/model/catalog", response_model=Models, operation_id="model_catalogue_as_published")
async def model_catalogue(
    service: ServiceHere,
    caller: Reader,
    status: Annotated[list[str], Query(description="one or several")] = ["production"],  # noqa: B006 (read only)
    domain: str | None = None,
    tag: str | None = None,
    name: str | None = None,
    version: str | None = None,
    class_: Annotated[str | None, Query(alias="class")] = None,
) -> Response:
    """Versions that match every filter; of `status`, one of its values."""
    statuses = [word for wanted in status for word in SAME_STATUS.get(wanted, (wanted,)) if word]
    filters = given(domain=domain, tag=tag, name=name, version=version, class_=class_)
    rows = await service.registry.catalogue({**filters, "status": statuses or ["production"]}, caller)
    if not rows:
        raise Problem(404, "not-found", "no model matches")
    return JSONResponse({"models": [MODEL.record(row) for row in rows]})


@router.head("/model/by_id/{identifier}", include_in_schema=False)
@router.get("/model/by_id/{identifier}", response_class=Response, responses=BYTES)
@router.head("/model/{identifier}", include_in_schema=False)
@router.get("/model/{identifier}", response_class=Response, responses=BYTES)
async def download_model(
    request: Request, identifier: Identifier, service: ServiceHere, caller: Reader, version: VersionOrLatest = "latest"
) -> Response:
    """The bytes of a version."""
    return await _bytes(request, service, await service.registry.find(identifier, version, caller))


@router.head("/model/{identifier}/data", include_in_schema=False)
@router.get("/model/{identifier}/data", response_model=ModelRecord)
async def model_record(
    identifier: Identifier, service: ServiceHere, caller: Reader, version: VersionOrLatest = "latest"
) -> Response:
    """The record of a version."""
    return JSONResponse(MODEL.record(await service.registry.find(identifier, version, caller)))


@router.head("/artifacts/{sha256}", include_in_schema=False)
@router.get("/artifacts/{sha256}", response_class=Response, responses=BYTES)
async def download_artifact(request: Request, sha256: DigestInPath, service: ServiceHere, caller: Reader) -> Response:
    """The bytes with this digest (with or without `sha256:`)."""
    return await _bytes(request, service, await service.registry.find_by_digest(sha256, caller))


@router.delete("/model/{identifier}", response_model=ModelRecord)
async def delete_model(
    identifier: Identifier, version: VersionOrLatest, service: ServiceHere, caller: Admin, request_id: RequestId
) -> Response:
    """Delete a version; answers the record that was."""
    row = await service.registry.delete(identifier, version, caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.patch("/model/{identifier}", response_model=ModelRecord, responses=JSON, openapi_extra=json_body(ModelChange))
async def change_model(
    identifier: Identifier, service: ServiceHere, caller: Writer, body: JsonObject, request_id: RequestId
) -> Response:
    """Change status, domain, tag, parameters or characteristics. Other members must be as they are."""
    unknown = [member for member in body if member not in MODEL.columns]
    if unknown:
        raise Problem(422, "invalid", f"a model has no member {', '.join(map(repr, unknown))}")
    changes = {MODEL.columns[member]: value for member, value in body.items()}
    for column, value in validated(ModelChange, body).columns().items():
        if column in changes:
            changes[column] = value
    row = await service.registry.change(identifier, None, _without_null(changes), caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.put("/model/{identifier}", response_model=ModelRecord, responses=UPLOAD, openapi_extra=raw_body())
async def put_model(
    request: Request,
    identifier: Identifier,
    service: ServiceHere,
    caller: Writer,
    request_id: RequestId,
    version: SameVersion = None,
    status: str | None = None,
    tag: str | None = None,
) -> Response:
    """Send a version's bytes again, unchanged, and set status and tag. Other bytes are refused: 409."""
    if media_type(request) != OCTET_STREAM:
        raise unsupported(OCTET_STREAM)
    registered = await service.registry.find(identifier, version, caller)
    words = _without_null({"status": status, "tag": tag})
    changes = _without_null(validated(ModelChange, words).columns())
    async with raw_upload(request, service.store) as upload:
        if upload.files["file"].content.sha256 != registered.sha256:
            raise Problem(
                409, "immutable",
                f"{registered.name} {registered.version} has other bytes, which others may have fetched; "
                "versions are immutable: publish a new version",
            )  # fmt: skip
    row = await service.registry.change(registered.id, None, changes, caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.post("/model/{identifier}/{member}", response_model=ModelRecord, responses=JSON, openapi_extra=json_body())
async def add_to_object(
    identifier: Identifier,
    member: ObjectMember,
    service: ServiceHere,
    caller: Writer,
    body: JsonObject,
    request_id: RequestId,
) -> Response:
    """Add to parameters or characteristics; what has the same name is replaced."""
    row = await service.registry.change(identifier, None, {member: body}, caller, request_id, merge=True)
    return JSONResponse(MODEL.record(row))


@router.put("/model/{identifier}/{member}", response_model=ModelRecord, responses=JSON, openapi_extra=json_body())
async def replace_object(
    identifier: Identifier,
    member: ObjectMember,
    service: ServiceHere,
    caller: Writer,
    body: JsonObject,
    request_id: RequestId,
) -> Response:
    """Replace all parameters or all characteristics."""
    row = await service.registry.change(identifier, None, {member: body}, caller, request_id)
    return JSONResponse(MODEL.record(row))


async def _bytes(request: Request, service: Service, row: Version) -> Response:
    piece = Piece(row.size, sha256=row.sha256)
    return await answer_bytes(request, service.store, [piece], sha256=row.sha256, media_type=OCTET_STREAM)


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
