"""The Dataset Sharing API, v1 as served."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from hxmlops_evidence.digests import digest_of
from hxmlops_sharing.downloads import answer_bytes
from hxmlops_sharing.openapi import bytes_answer, form_body, problems_of
from hxmlops_sharing.problems import Problem, validated
from hxmlops_sharing.records import DATASET, DatasetMetadata, DatasetRecord, Datasets
from hxmlops_sharing.registry import Version
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
    check_name,
    given,
)
from hxmlops_sharing.store import Content
from hxmlops_sharing.uploads import FORM, form_upload, media_type, unsupported
from hxmlops_sharing.zips import Entry, zip_of

router = APIRouter(responses=problems_of(400, 401, 403, 404, 422, 503))

ZIP = "application/zip"
BYTES = bytes_answer(ZIP)
UPLOAD = problems_of(409, 413, 415, 507)
FILES = ("datasetFile", "dataModelFile")


@router.post(
    "/dataset", response_model=DatasetRecord, responses=UPLOAD, openapi_extra=form_body(DatasetMetadata, *FILES)
)
async def upload_dataset(request: Request, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Register a version: a dataset and the data model that describes it."""
    if media_type(request) != FORM:
        raise unsupported(FORM)
    async with form_upload(request, service.store, FILES, with_crc32=True) as upload:
        metadata = validated(DatasetMetadata, upload.texts)
        check_name(caller, metadata.name)
        files = [upload.files[name] for name in FILES]
        contents = _contents(files[0].content, files[1].content)
        row = await service.registry.add(metadata.columns(), contents, files, caller, request_id)
    return JSONResponse(DATASET.record(row))


@router.head("/dataset_catalog", include_in_schema=False)
@router.get("/dataset_catalog", response_model=Datasets)
async def dataset_catalogue(
    service: ServiceHere,
    caller: Reader,
    tag: str | None = None,
    dataType: str | None = None,  # noqa: N803 (the name on the wire)
    name: str | None = None,
    version: str | None = None,
) -> Response:
    """Versions that match every filter."""
    filters = given(tag=tag, data_type=dataType, name=name, version=version)
    rows = await service.registry.catalogue(filters, caller)
    if not rows:
        raise Problem(404, "not-found", "no dataset matches")
    return JSONResponse({"datasets": [DATASET.record(row) for row in rows]})


@router.head("/dataset/by_id/{identifier}", include_in_schema=False)
@router.get("/dataset/by_id/{identifier}", response_class=Response, responses=BYTES)
async def download_dataset(
    request: Request,
    identifier: Identifier,
    service: ServiceHere,
    caller: Reader,
    version: VersionOrLatest = "latest",
) -> Response:
    """A zip file with the entries `dataset` and `dataModel`."""
    return await _zip(request, service, await service.registry.find(identifier, version, caller))


@router.head("/dataset/{identifier}/data", include_in_schema=False)
@router.get("/dataset/{identifier}/data", response_model=DatasetRecord)
async def dataset_record(
    identifier: Identifier, service: ServiceHere, caller: Reader, version: VersionOrLatest = "latest"
) -> Response:
    """The record of a version."""
    return JSONResponse(DATASET.record(await service.registry.find(identifier, version, caller)))


@router.head("/artifacts/{sha256}", include_in_schema=False)
@router.get("/artifacts/{sha256}", response_class=Response, responses=BYTES)
async def download_artifact(request: Request, sha256: DigestInPath, service: ServiceHere, caller: Reader) -> Response:
    """That zip file by the digest of the pair: of {dataset: sha256, dataModel: sha256}."""
    return await _zip(request, service, await service.registry.find_by_digest(sha256, caller))


@router.delete("/dataset/{identifier}", response_model=DatasetRecord)
async def delete_dataset(
    identifier: Identifier,
    version: VersionOrLatest,
    service: ServiceHere,
    caller: Admin,
    request_id: RequestId,
) -> Response:
    """Delete a version; answers the record that was."""
    return JSONResponse(DATASET.record(await service.registry.delete(identifier, version, caller, request_id)))


def _contents(dataset: Content, data_model: Content) -> dict[str, Any]:
    return {
        "sha256": digest_of({"dataset": dataset.sha256, "dataModel": data_model.sha256}),
        "dataset_sha256": dataset.sha256,
        "dataset_size": dataset.size,
        "dataset_crc32": dataset.crc32,
        "data_model_sha256": data_model.sha256,
        "data_model_size": data_model.size,
        "data_model_crc32": data_model.crc32,
    }


async def _zip(request: Request, service: Service, row: Version) -> Response:
    pieces = zip_of(
        [
            Entry("dataset", row.dataset_sha256, row.dataset_size, row.dataset_crc32),
            Entry("dataModel", row.data_model_sha256, row.data_model_size, row.data_model_crc32),
        ]
    )
    filename = f"{row.name}_{row.version}_files.zip"
    return await answer_bytes(request, service.store, pieces, sha256=row.sha256, media_type=ZIP, filename=filename)
