"""The two applications, from one code base."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from hxmlops_sharing import health, problems, tus, versions_api
from hxmlops_sharing.fast_reads import FastReads
from hxmlops_sharing.frame import RequestFrame
from hxmlops_sharing.openapi import DocumentedApp, problems_of
from hxmlops_sharing.service import Service

PREFIX = "/api/v1"


def create_app(service: Service) -> FastAPI:
    """The application of the service's kind, over an open service."""
    if service.registry.kind.word == "model":
        from hxmlops_sharing.model_api import router
    else:
        from hxmlops_sharing.dataset_api import router
    app = DocumentedApp(
        title=f"HX-MLOps {service.registry.kind.word.title()} Sharing API",
        version="1.0",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.include_router(health.router)
    app.include_router(health.router, prefix=PREFIX)
    app.include_router(router, prefix=PREFIX)
    app.include_router(tus.router, prefix=PREFIX)
    app.include_router(versions_api.router, prefix=PREFIX, responses=problems_of(400, 401, 403, 404, 422, 429, 503))
    if service.settings.catalogue:
        from hxmlops_sharing import catalogue  # imports the template engine

        app.include_router(catalogue.router)
    app.exception_handler(HTTPException)(problems.on_http_exception)
    app.exception_handler(RequestValidationError)(problems.on_invalid_request)
    app.add_middleware(tus.TusFrame)
    app.add_middleware(FastReads, kind=service.registry.kind)
    app.add_middleware(RequestFrame)
    return app
