"""The JSON Schemas, and the examples that go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hxmlops_evidence.digests import digest_of
from hxmlops_evidence.statements import TYPES
from hxmlops_evidence.validation import load_schema, problem_with

DOCUMENTS = (*TYPES, "card", "trust")


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside a schema."""
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from parts(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from parts(inner)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every mapping in a document."""
    if isinstance(document, dict):
        yield path
        for name, inner in document.items():
            yield from places(inner, (*path, name))
    elif isinstance(document, list):
        for number, inner in enumerate(document):
            yield from places(inner, (*path, number))


def test_every_document_has_a_schema(schema_names: list[str]) -> None:
    assert set(schema_names) == {*DOCUMENTS, "common"}


@pytest.mark.parametrize("name", [*DOCUMENTS, "common"])
def test_schemas_are_valid_and_named_like_their_files(name: str) -> None:
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"{name}.schema.json"


@pytest.mark.parametrize("name", [*DOCUMENTS, "common"])
def test_every_mapping_in_a_schema_says_all_that_it_may_hold(name: str) -> None:
    assert [
        part for part in parts(load_schema(name)) if part.get("type") == "object" and "additionalProperties" not in part
    ] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_example_is_valid(name: str, example: Callable[[str], Any]) -> None:
    assert problem_with(name, example(name)) is None


@pytest.mark.parametrize("type_", TYPES)
def test_an_unknown_field_is_refused_wherever_it_stands(type_: str, example: Callable[[str], Any]) -> None:
    open_mappings = {"inputs", "files", "metrics", "columns", "schema_columns", "map", "counts", "quasi_identifiers"}
    open_mappings |= {"sensitive", "information_loss"}
    for place in places(example(type_)):
        if place and place[-1] in open_mappings:
            continue
        document = example(type_)
        inner = document
        for step in place:
            inner = inner[step]
        inner["surprise"] = 1
        assert problem_with(type_, document), place


@pytest.mark.parametrize("type_", TYPES)
def test_every_field_of_a_statement_is_required(type_: str, example: Callable[[str], Any]) -> None:
    for name in example(type_):
        document = example(type_)
        del document[name]
        assert problem_with(type_, document) == f"document: missing {name}"
    for name in example(type_)["body"]:
        document = example(type_)
        del document["body"][name]
        assert problem_with(type_, document) == f"body: missing {name}"


def test_the_examples_digests_are_true(example: Callable[[str], Any]) -> None:
    evidence, protection = example("evidence"), example("protection")
    assert evidence["subject_digest"] == digest_of(evidence["body"]["files"])
    assert protection["body"]["recipe_digest"] == digest_of(protection["body"]["recipe"])
    assert protection["subject_digest"] == protection["body"]["plaintext_digest"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"issued_at": "2026-11-23T09:30:00+01:00"}, "issued_at: must have the form"),
        ({"issued_at": "2026-02-30T09:30:00Z"}, "issued_at: breaks format date-time"),
        ({"subject_digest": "sha256:" + "0" * 64 + "\n"}, "subject_digest: must have the form"),
        ({"subject_digest": "sha1:" + "0" * 40}, "subject_digest: must have the form"),
        ({"audience": "mno staging"}, "audience: must have the form"),
        ({"sequence": 0}, "sequence: breaks minimum 1"),
        ({"sequence": True}, "sequence: must be integer"),
        ({"type": "approval"}, "type: must be receipt"),
        ({"inputs": {"": "sha256:" + "0" * 64}}, "inputs: breaks minLength 1"),
        ({"inputs": {"file": "none"}}, "inputs.file: must have the form"),
    ],
)
def test_findings_say_where_and_what_but_never_the_value(
    change: dict[str, Any], says: str, example: Callable[[str], Any]
) -> None:
    problem = problem_with("receipt", example("receipt") | change)
    assert problem is not None
    assert problem.startswith(says)


def test_what_is_nested_too_deeply_is_no_crash() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = {"body": deep}
    assert problem_with("receipt", deep) is not None
