"""The Model Sharing API: v1 as served, and what its published OpenAPI file adds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from hxmlops_sharing.access import Caller
from hxmlops_sharing.downloads import answer_bytes
from hxmlops_sharing.openapi import form_or_raw_body, json_body, page_headers, problems_of, raw_body
from hxmlops_sharing.problems import Problem, validated
from hxmlops_sharing.records import (
    MODEL,
    SAME_STATUS,
    ModelChange,
    ModelMetadata,
    ModelRecord,
    ModelRegistration,
    Models,
)
from hxmlops_sharing.registry import Version
from hxmlops_sharing.service import (
    Annotator,
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
    noted,
)
from hxmlops_sharing.uploads import (
    FORM,
    JSON,
    OCTET_STREAM,
    form_upload,
    json_upload,
    media_type,
    raw_upload,
    unsupported,
)
from hxmlops_sharing.versions_api import After, JsonObject, Limit, catalogue_of, hand_over, register, version_routes
from hxmlops_sharing.zips import Piece

router = APIRouter(responses=problems_of(400, 401, 403, 404, 422, 429, 503))
ObjectMember = Literal["parameters", "characteristics"]

UPLOAD = problems_of(409, 411, 413, 415, 507)
CHANGE = problems_of(409, 413, 415)


@router.post(
    "/model", response_model=ModelRecord, responses=UPLOAD,
    openapi_extra=form_or_raw_body(ModelMetadata, "file", registration=ModelRegistration),
)  # fmt: skip
async def upload_model(request: Request, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Register a version: a form, the bytes alone with the metadata in the query, or a file sent by tus before."""
    match media_type(request):
        case "multipart/form-data":
            upload_context = form_upload(request, service.receiver, ("file",))
        case "application/octet-stream":
            upload_context = raw_upload(request, service.receiver)
        case "application/json":
            upload_context = json_upload(request, service, caller, {"file": "sha256"})
        case _:
            raise unsupported(FORM, OCTET_STREAM, JSON)
    async with upload_context as upload:
        metadata = validated(ModelMetadata, upload.texts)
        check_name(caller, metadata.name)
        file = upload.files["file"]
        contents = {"sha256": file.content.sha256, "size": file.content.size}
        row = await register(service, metadata.columns(), contents, [file], caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.head("/model_catalog", include_in_schema=False)
@router.get("/model_catalog", response_model=Models, responses=page_headers())
@router.head("/model/catalog", include_in_schema=False)
@router.get(
    "/model/catalog", response_model=Models, responses=page_headers(), operation_id="model_catalogue_as_published"
)
async def model_catalogue(
    request: Request,
    service: ServiceHere,
    caller: Reader,
    request_id: RequestId,
    status: Annotated[list[str], Query(description="one or several")] = ["production"],  # noqa: B006 (read only)
    domain: str | None = None,
    tag: str | None = None,
    name: str | None = None,
    version: str | None = None,
    class_: Annotated[str | None, Query(alias="class")] = None,
    after: After = 0,
    limit: Limit | None = None,
) -> Response:
    """Versions that match every filter; of `status`, one of its values. In pages when there is a limit."""
    statuses = [word for wanted in status for word in SAME_STATUS.get(wanted, (wanted,)) if word]
    filters = given(domain=domain, tag=tag, name=name, version=version, class_=class_)
    filters["status"] = statuses or ["production"]
    found = await service.registry.catalogue(filters, caller, after=after, limit=limit)
    noted(service, caller, "catalogue", request_id, name=name)
    return catalogue_of(request, MODEL, found, limit)


async def answer_model(request: Request, service: Service, caller: Caller, row: Version) -> Response:
    handed = await hand_over(request, service, caller, row, [row.sha256])
    piece = Piece(row.size, segments=handed.segments[row.sha256])
    return await answer_bytes(
        request, service.store, [piece], sha256=row.sha256, media_type=OCTET_STREAM, digest=row.sha256,
        redirect=service.settings.s3_redirect, begin=handed.begin, end=handed.end,
    )  # fmt: skip


router.include_router(version_routes(MODEL, ModelRecord, Models, OCTET_STREAM, answer_model))


@router.head("/model/{identifier}", include_in_schema=False)
@router.get("/model/{identifier}", response_class=Response, include_in_schema=False)
async def download_as_published(
    request: Request, identifier: Identifier, service: ServiceHere, caller: Reader, version: VersionOrLatest = "latest"
) -> Response:
    """The bytes of a version."""
    return await answer_model(request, service, caller, await service.registry.find(identifier, version, caller))


@router.patch("/model/{identifier}", response_model=ModelRecord, responses=CHANGE, openapi_extra=json_body(ModelChange))
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
    async with raw_upload(request, service.receiver) as upload:
        if upload.files["file"].content.sha256 != registered.sha256:
            raise Problem(
                409, "immutable",
                f"{registered.name} {registered.version} has other bytes, which others may have fetched; "
                "versions are immutable: publish a new version",
            )  # fmt: skip
    row = await service.registry.change(registered.id, None, changes, caller, request_id)
    return JSONResponse(MODEL.record(row))


@router.post("/model/{identifier}/{member}", response_model=ModelRecord, responses=CHANGE, openapi_extra=json_body())
async def add_to_object(
    identifier: Identifier,
    member: ObjectMember,
    service: ServiceHere,
    caller: Annotator,
    body: JsonObject,
    request_id: RequestId,
) -> Response:
    """Add to parameters or characteristics; what has the same name is replaced, if the token's scope is `write`."""
    row = await service.registry.change(identifier, None, {member: body}, caller, request_id, merge=True)
    return JSONResponse(MODEL.record(row))


@router.put("/model/{identifier}/{member}", response_model=ModelRecord, responses=CHANGE, openapi_extra=json_body())
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


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
