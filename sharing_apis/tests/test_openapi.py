"""The OpenAPI documents: whatever they allow is answered as they say, and nothing makes a server fail."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from hxmlops_sharing.tokens import create_token

SLOW = list(HealthCheck)

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
        for result in schema.exclude(path_regex="/health$").get_all_operations():
            assert isinstance(result, Ok)
            check(result.ok(), mode, headers)


def check(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode, headers: Headers) -> None:
    """Send requests that the document allows (or, in negative mode, forbids) and compare the answers with it."""
    excluded: list[schemathesis.CheckFunction] = [negative_data_rejection]  # v1 ignores unknown query parameters
    if operation.label in ("POST /api/v1/model", "POST /api/v1/dataset"):
        excluded.append(positive_data_acceptance)  # JSON in a form's text has a form that no schema can say

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

    compare()
