"""What the OpenAPI documents say of bodies and errors that are not read or answered through pydantic."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from hxmlops_sharing.problems import PROBLEM_TYPE
from hxmlops_sharing.records import ProblemDetails
from hxmlops_sharing.uploads import FORM, OCTET_STREAM


class DocumentedApp(FastAPI):
    """Its document has the schema that `problems_of` refers to."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
        return document


BINARY = {"type": "string", "format": "binary"}
JSON_TEXT = {"type": "string", "contentMediaType": "application/json", "description": "a JSON object"}


def bytes_answer(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Answers of a download: whole, in part, not at all."""
    content = {"content": {media_type: {"schema": BINARY}}}
    return {
        200: {"description": "the bytes; ETag is their SHA-256", **content},
        206: {"description": "the range asked for", **content},
        304: {"description": "the ETag is in If-None-Match"},
        **problems_of(416),
    }


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors have the members of ProblemDetails."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {status: {"description": "Problem", "content": {PROBLEM_TYPE: {"schema": schema}}} for status in statuses}


def form_body(metadata: type[BaseModel], *files: str) -> dict[str, Any]:
    """A multipart form with a text for each member of the metadata, and these files."""
    return _body({FORM: {"schema": _form(metadata, files)}})


def form_or_raw_body(metadata: type[BaseModel], *files: str) -> dict[str, Any]:
    """That form, or the bytes alone with the texts in the query."""
    schema = _form(metadata, ())
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": property_}
        for name, property_ in schema["properties"].items()
        if property_ != JSON_TEXT
    ]
    body = _body({FORM: {"schema": _form(metadata, files)}, OCTET_STREAM: {"schema": BINARY}})
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
