"""The two applications, from one code base."""

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from hxmlops_sharing import problems
from hxmlops_sharing.frame import RequestFrame
from hxmlops_sharing.openapi import DocumentedApp
from hxmlops_sharing.records import Health
from hxmlops_sharing.service import Service

PREFIX = "/api/v1"

health_router = APIRouter()


@health_router.get("/health")
@health_router.head("/health", include_in_schema=False)
async def health() -> Health:
    """Answered without a token."""
    return Health(status="UP")


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
    app.include_router(health_router)
    app.include_router(health_router, prefix=PREFIX)
    app.include_router(router, prefix=PREFIX)
    app.exception_handler(HTTPException)(problems.on_http_exception)
    app.exception_handler(RequestValidationError)(problems.on_invalid_request)
    app.add_middleware(RequestFrame)
    return app
