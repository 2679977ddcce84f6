"""Errors as clients see them: RFC 9457 members beside v1's `detail`, which is always a string."""

import errno
import http
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from hxmlops_sharing.database import DatabaseUnavailable
from hxmlops_sharing.store import StoreUnavailable

PROBLEM_TYPE = "application/problem+json"
POSTGRESQL_DISK_FULL = "53100"
POSTGRESQL_BAD_CHARACTER = "22021"
NOT_REGISTERED = {460: "Checksum Mismatch"}  # of tus
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Problem(HTTPException):
    """An error of the client's, or one it can understand. `slug` is its stable name, `detail` one line."""

    def __init__(self, status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.slug = slug


class ProblemResponse(JSONResponse):
    media_type = PROBLEM_TYPE


def respond(error: HTTPException, request_id: str) -> ProblemResponse:
    """The response for an error. The router's own errors (404, 405) get their phrase as slug."""
    title = NOT_REGISTERED.get(error.status_code) or http.HTTPStatus(error.status_code).phrase
    slug = error.slug if isinstance(error, Problem) else re.sub(r"\W+", "-", title.lower())
    return ProblemResponse(
        {
            "type": f"urn:hxmlops:problem:{slug}",
            "title": title,
            "status": error.status_code,
            "detail": error.detail,
            "requestId": request_id,
        },
        status_code=error.status_code,
        headers=error.headers,
    )


async def on_http_exception(request: Request, error: HTTPException) -> ProblemResponse:
    return respond(error, request.state.request_id)


async def on_invalid_request(request: Request, error: RequestValidationError) -> ProblemResponse:
    return respond(invalid(error.errors()), request.state.request_id)


def invalid(errors: Sequence[Any]) -> Problem:
    """422 with every field that is wrong, without its value."""
    return Problem(422, "invalid", "; ".join(_sentence(error) for error in errors))


def validated[T: BaseModel](model: type[T], values: Mapping[str, Any]) -> T:
    """A pydantic model from what a client sent. Problem 422."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors()) from None


def of_exception(error: BaseException) -> Problem:
    """What a client is told of an exception nobody handled: what is full or away is said, all else is not."""
    if is_disk_full(error):
        return Problem(507, "storage-full", "no room left for this upload: tell the owner of this server")
    if isinstance(error, DatabaseUnavailable | StoreUnavailable):
        what = "database" if isinstance(error, DatabaseUnavailable) else "store"
        return Problem(503, f"{what}-unavailable", f"the {what} does not answer: try again", {"Retry-After": "2"})
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == POSTGRESQL_BAD_CHARACTER:
        return Problem(422, "invalid", "a text should have no NUL characters")
    return Problem(500, "internal", "unexpected error: tell the owner of this server the request id")


def is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    if isinstance(error, DBAPIError):
        if isinstance(error.orig, sqlite3.Error):
            return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        return getattr(error.orig, "sqlstate", None) == POSTGRESQL_DISK_FULL
    return False


def _sentence(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in ("query", "path", "body"))
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
