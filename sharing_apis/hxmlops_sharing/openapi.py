"""What the OpenAPI documents say of bodies and errors that are not read or answered through pydantic."""

import threading
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from hxmlops_sharing.examples import add_examples
from hxmlops_sharing.problems import PROBLEM_TYPE
from hxmlops_sharing.records import ProblemDetails
from hxmlops_sharing.uploads import FORM, JSON, OCTET_STREAM


class DocumentedApp(FastAPI):
    """Its document has the schema that `problems_of` refers to, and examples."""

    def setup(self) -> None:
        self._making = threading.Lock()
        if self.openapi_url:
            self.add_route(self.openapi_url, self._answer, include_in_schema=False)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
            for operations in document["paths"].values():
                for operation in operations.values():
                    _without_empty_content(operation["responses"])
            add_examples(document)
        return super().openapi()

    async def _answer(self, request: Request) -> JSONResponse:
        document = await anyio.to_thread.run_sync(self._made)  # takes the first time as long as a thousand requests
        prefix = request.scope.get("root_path", "")
        return JSONResponse({**document, "servers": [{"url": prefix}]} if prefix else document)

    def _made(self) -> dict[str, Any]:
        with self._making:
            return self.openapi()


def _without_empty_content(answers: dict[str, Any]) -> None:
    """FastAPI says JSON of answers that have no body."""
    for status in ("201", "204"):
        if answers.get(status, {}).get("content") == {"application/json": {"schema": {}}}:
            del answers[status]["content"]


BINARY = {"type": "string", "format": "binary"}
JSON_TEXT = {"type": "string", "contentMediaType": "application/json", "description": "a JSON object"}


def bytes_answer(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Answers of a download: whole, in part, not at all."""
    content = {"content": {media_type: {"schema": BINARY}}}
    return {
        200: {"description": "the bytes; ETag is their SHA-256", **content},
        206: {
            "description": "the range asked for; several come as multipart/byteranges",
            "content": {**content["content"], "multipart/byteranges": {"schema": BINARY}},
        },
        304: {"description": "the ETag is in If-None-Match"},
        307: {"description": "the bytes are at Location, an S3 URL that is good for minutes (setting s3_redirect)"},
        **problems_of(412, 416, 500, 503),
    }


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors have the members of ProblemDetails."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {status: {"description": "Problem", "content": {PROBLEM_TYPE: {"schema": schema}}} for status in statuses}


def page_headers() -> dict[int | str, dict[str, Any]]:
    """An answer in pages."""
    link = {"description": 'with a limit, the next page: `<URL>; rel="next"`', "schema": {"type": "string"}}
    return {200: {"headers": {"Link": link}}}


def form_body(metadata: type[BaseModel], *files: str, registration: type[BaseModel]) -> dict[str, Any]:
    """A multipart form with a text for each member of the metadata and these files, or JSON that names files."""
    return _body({FORM: {"schema": _form(metadata, files)}, JSON: {"schema": registration.model_json_schema()}})


def form_or_raw_body(metadata: type[BaseModel], *files: str, registration: type[BaseModel]) -> dict[str, Any]:
    """That form or JSON, or the bytes alone with the texts in the query."""
    schema = _form(metadata, ())
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": property_}
        for name, property_ in schema["properties"].items()
        if property_ != JSON_TEXT
    ]
    body = _body(
        {
            FORM: {"schema": _form(metadata, files)},
            OCTET_STREAM: {"schema": BINARY},
            JSON: {"schema": registration.model_json_schema()},
        }
    )
    return {"parameters": parameters, **body}


def raw_body() -> dict[str, Any]:
    return _body({OCTET_STREAM: {"schema": BINARY}})


def json_body(model: type[BaseModel] | None = None) -> dict[str, Any]:
    """A JSON object of this model, or any."""
    schema = model.model_json_schema() if model else {"type": "object"}
    return _body({"application/json": {"schema": schema}})


def _form(metadata: type[BaseModel], files: tuple[str, ...]) -> dict[str, Any]:
    schema = metadata.model_json_schema()
    properties = {
        name: JSON_TEXT if property_.get("type") == "object" else {**property_}
        for name, property_ in schema["properties"].items()
    }
    return {
        "type": "object",
        "properties": properties | dict.fromkeys(files, BINARY),
        "required": [*schema["required"], *files],
    }


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
