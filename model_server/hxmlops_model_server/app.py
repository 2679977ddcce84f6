"""The HTTP side: the protocol's paths on Starlette. Whatever takes time runs in threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hxmlops_model_server import __version__
from hxmlops_model_server.log import log
from hxmlops_model_server.protocol import BadRequest, answer, parse
from hxmlops_model_server.registry import Registry, Slot, Unknown

MAX_BODY = 32 * 1024 * 1024
PLATFORM = "onnx_onnxv1"


def make_app(registry: Registry) -> Starlette:
    """The application; it starts and stops `registry` with itself."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        registry.start()
        yield
        await run_in_threadpool(registry.stop)

    async def server(_: HttpRequest) -> Response:
        return JSONResponse({"name": "hxmlops_model_server", "version": __version__, "extensions": []})

    async def live(_: HttpRequest) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: HttpRequest) -> Response:
        is_ready = registry.ready
        return JSONResponse({"live": True, "ready": is_ready}, 200 if is_ready else 503)

    async def metadata(request: HttpRequest) -> Response:
        slot = _slot(registry, request)
        served = registry.served(slot.version.name)
        model = slot.model
        parameters = {
            "version": slot.version.version,
            "current": served.listing.current == slot.version.version,
            "state": slot.state,
            "model_digest": slot.version.model_digest,
            "listed_at": slot.version.listed_at,
        }
        if slot.reason:
            parameters["reason"] = slot.reason
        return JSONResponse(
            {
                "name": slot.version.name,
                "versions": list(served.listing.versions),
                "platform": PLATFORM,
                "inputs": model.inputs if model else [],
                "outputs": model.outputs if model else [],
                "parameters": parameters | ({"instead_of_inputs": model.features} if model else {}),
            }
        )

    async def model_ready(request: HttpRequest) -> Response:
        slot = _slot(registry, request)
        is_ready = slot.model is not None
        return JSONResponse({"name": slot.version.name, "ready": is_ready}, 200 if is_ready else 503)

    async def infer(request: HttpRequest) -> Response:
        slot = _slot(registry, request)
        body = await _body(request)
        return await run_in_threadpool(_infer, slot, body)

    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, metadata),
            Route(f"{path}/ready", model_ready),
            Route(f"{path}/infer", infer, methods=["POST"]),
        ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})


def _slot(registry: Registry, request: HttpRequest) -> Slot:
    try:
        return registry.slot(request.path_params["name"], request.path_params.get("version"))
    except Unknown as problem:
        raise HTTPException(404, str(problem)) from None


async def _body(request: HttpRequest) -> bytes:
    body = bytearray()
    if int(request.headers.get("content-length", 0)) <= MAX_BODY:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
        else:
            return bytes(body)
    raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes; send several requests")


def _infer(slot: Slot, body: bytes) -> Response:
    """Answer an inference request, in a thread: the event loop goes on serving others."""
    version = slot.version
    if slot.model is None:
        return _error(503, f"version {version.version} is not ready: {slot.reason or 'loading'}")
    try:
        request = parse(body)
        content = answer(version.name, version.version, request, slot.model.infer(request))
        return Response(content, media_type="application/json")
    except BadRequest as problem:
        return _error(400, str(problem))
    except Exception as problem:  # its text may hold the client's data
        log("inference_failed", model=version.name, version=version.version, error=type(problem).__name__)
        return _error(500, "the model cannot answer this request")


async def _http_error(_: HttpRequest, problem: Exception) -> Response:
    if not isinstance(problem, HTTPException):
        raise problem
    return _error(problem.status_code, problem.detail)


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)
