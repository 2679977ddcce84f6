"""The OpenAPI documents: whatever they allow is answered as they say, and nothing makes a server fail."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from hxmlops_sharing.tokens import create_token

UNSAYABLE = (
    "POST /api/v1/model",
    "POST /api/v1/dataset",
    "POST /api/v1/files",
    "PATCH /api/v1/files/{identifier}",
    "PUT /api/v1/aliases/{alias}",
    "DELETE /api/v1/aliases/{alias}",
)
"""A form's JSON in a text, tus's base64, a revision that is the alias's: no schema says it all."""

type Headers = dict[str, Any]
type Start = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_documented(start: Start, tmp_path: Path, kind: str, mode: GenerationMode) -> None:
    tokens, token = tmp_path / "tokens.json", tmp_path / "token"
    create_token(tokens, token, client="me", scopes=["admin"], artifacts=["*"], days=1)
    headers: Headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
    files = {"file": b"x", "datasetFile": b"x", "dataModelFile": b"x"}
    with start(kind=kind, auth="tokens", tokens=tokens) as api:
        for number in range(5):
            form = {"name": "a", "version": str(number)}
            assert api.post(f"/api/v1/{kind}", data=form, files=files, headers=headers).status_code == 200
        schema = schemathesis.openapi.from_url(str(api.base_url.join("/api/v1/openapi.json")))
        for result in schema.exclude(path_regex="/(health|live|ready)$").get_all_operations():
            assert isinstance(result, Ok)
            check(result.ok(), mode, headers)


@schemathesis.serializer("application/offset+octet-stream")
def serialize(_context: Any, value: Any) -> bytes:
    """A body of tus is what it is."""
    return value if isinstance(value, bytes) else str(value).encode()


def check(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode, headers: Headers) -> None:
    """Send requests that the document allows (or, in negative mode, forbids) and compare the answers with it."""
    excluded: list[schemathesis.CheckFunction] = [negative_data_rejection]  # v1 ignores unknown query parameters
    if operation.label in UNSAYABLE:
        excluded.append(positive_data_acceptance)  # a form's JSON, tus's base64: no schema can say it

    @settings(
        max_examples=5,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def compare(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=headers, excluded_checks=excluded)

    try:
        compare()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # an operation that takes nothing: nothing to get wrong


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_bodies_and_answers_have_examples_that_are_valid(start: Start, kind: str) -> None:
    with start(kind=kind) as api:
        document = api.get("/api/v1/openapi.json").json()
    looked_at = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            contents = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (content for each in contents for content in each.get("content", {}).items()):
                media_type, said = content
                if "json" in media_type and "HTTPValidationError" not in str(said):
                    schema = {**said["schema"], "components": document["components"]}
                    assert "example" in said, (method, path)
                    jsonschema.validate(said["example"], schema)
                    looked_at += 1
    assert looked_at > 100


def test_making_the_document_does_not_keep_others_waiting(start: Start, model_host: Any) -> None:
    with start() as api, ThreadPoolExecutor() as pool:
        model_host.app.openapi_schema = None
        making, answered = pool.submit(api.get, "/api/v1/openapi.json"), 0
        while not making.done():
            answered += api.get("/live").status_code == 200
        assert making.result().status_code == 200
    assert answered > 3
