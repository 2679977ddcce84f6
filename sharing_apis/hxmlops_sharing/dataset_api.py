"""The Dataset Sharing API, v1 as served."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from hxmlops_evidence.digests import digest_of
from hxmlops_sharing.access import Caller
from hxmlops_sharing.downloads import answer_bytes
from hxmlops_sharing.incoming import Content
from hxmlops_sharing.openapi import form_body, page_headers, problems_of
from hxmlops_sharing.problems import validated
from hxmlops_sharing.records import DATASET, DatasetMetadata, DatasetRecord, DatasetRegistration, Datasets
from hxmlops_sharing.registry import Version
from hxmlops_sharing.service import Reader, RequestId, Service, ServiceHere, Writer, check_name, given, noted
from hxmlops_sharing.uploads import FORM, JSON, form_upload, json_upload, media_type, unsupported
from hxmlops_sharing.versions_api import After, Limit, catalogue_of, hand_over, register, version_routes
from hxmlops_sharing.zips import Entry, zip_of

router = APIRouter(responses=problems_of(400, 401, 403, 404, 422, 429, 503))

ZIP = "application/zip"
UPLOAD = problems_of(409, 411, 413, 415, 507)
FILES = ("datasetFile", "dataModelFile")


@router.post(
    "/dataset", response_model=DatasetRecord, responses=UPLOAD,
    openapi_extra=form_body(DatasetMetadata, *FILES, registration=DatasetRegistration),
)  # fmt: skip
async def upload_dataset(request: Request, service: ServiceHere, caller: Writer, request_id: RequestId) -> Response:
    """Register a version: a dataset and the data model that describes it, in a form or sent by tus before."""
    match media_type(request):
        case "multipart/form-data":
            upload_context = form_upload(request, service.receiver, FILES, with_crc32=True)
        case "application/json":
            digests = {"datasetFile": "datasetSha256", "dataModelFile": "dataModelSha256"}
            upload_context = json_upload(request, service, caller, digests)
        case _:
            raise unsupported(FORM, JSON)
    async with upload_context as upload:
        metadata = validated(DatasetMetadata, upload.texts)
        check_name(caller, metadata.name)
        files = [upload.files[name] for name in FILES]
        contents = _contents(files[0].content, files[1].content)
        row = await register(service, metadata.columns(), contents, files, caller, request_id)
    return JSONResponse(DATASET.record(row))


@router.head("/dataset_catalog", include_in_schema=False)
@router.get("/dataset_catalog", response_model=Datasets, responses=page_headers())
async def dataset_catalogue(
    request: Request,
    service: ServiceHere,
    caller: Reader,
    request_id: RequestId,
    tag: str | None = None,
    dataType: str | None = None,  # noqa: N803 (the name on the wire)
    name: str | None = None,
    version: str | None = None,
    after: After = 0,
    limit: Limit | None = None,
) -> Response:
    """Versions that match every filter. In pages when there is a limit."""
    filters = given(tag=tag, data_type=dataType, name=name, version=version)
    found = await service.registry.catalogue(filters, caller, after=after, limit=limit)
    noted(service, caller, "catalogue", request_id, name=name)
    return catalogue_of(request, DATASET, found, limit)


async def answer_dataset(request: Request, service: Service, caller: Caller, row: Version) -> Response:
    """A zip file with the entries `dataset` and `dataModel`."""
    digests = [row.dataset_sha256, row.data_model_sha256]
    handed = await hand_over(request, service, caller, row, digests)
    pieces = zip_of(
        [
            Entry("dataset", handed.segments[digests[0]], row.dataset_size, row.dataset_crc32),
            Entry("dataModel", handed.segments[digests[1]], row.data_model_size, row.data_model_crc32),
        ]
    )
    return await answer_bytes(
        request, service.store, pieces, sha256=row.sha256, media_type=ZIP,
        filename=f"{row.name}_{row.version}_files.zip", begin=handed.begin, end=handed.end,
    )  # fmt: skip


router.include_router(version_routes(DATASET, DatasetRecord, Datasets, ZIP, answer_dataset))


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
