"""Documents against their JSON Schema, schemas/*.schema.json; findings never quote a value."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from hxmlops_evidence.digests import Json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator


def problem_with(schema: str, document: Json) -> str | None:
    """What is wrong with a document by the schema of this name, with its place; None when nothing is."""
    from jsonschema.exceptions import best_match

    try:
        error = best_match(_validator(schema).iter_errors(document))
    except RecursionError:
        return "nested too deeply"
    return None if error is None else _say(error)


def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of this name, as shipped."""
    text = resources.files("hxmlops_evidence").joinpath("schemas", f"{name}.schema.json").read_text("utf-8")
    return dict(json.loads(text))


@functools.cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator, FormatChecker, validators
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    formats = FormatChecker(formats=())
    formats.checks("date-time", raises=ValueError)(_is_time)
    common = load_schema("common")
    registry = Registry().with_resource(common["$id"], DRAFT202012.create_resource(common))
    strict: Any = validators.extend(Draft202012Validator, {"pattern": _whole_pattern})  # type: ignore[no-untyped-call]
    validator: Validator = strict(load_schema(name), registry=registry, format_checker=formats)
    return validator


def _is_time(text: object) -> bool:
    return not isinstance(text, str) or bool(datetime.fromisoformat(text))


def _whole_pattern(_: Validator, pattern: str, instance: Json, __: Json) -> Iterator[ValidationError]:
    """Python's `$` lets a line end pass, so patterns must match the whole text."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError("")


def _say(error: ValidationError) -> str:
    place = ".".join(str(step) for step in error.absolute_path) or "document"
    rule: Any = error.validator_value
    found: Any = error.instance
    match error.validator:
        case "additionalProperties":
            schema: Any = error.schema
            unknown = sorted(set(found) - set(schema.get("properties", {})))
            return f"{place}: unknown field {', '.join(unknown[:3])}"
        case "required":
            return f"{place}: missing {', '.join(name for name in rule if name not in found)}"
        case "type":
            return f"{place}: must be {rule if isinstance(rule, str) else ' or '.join(rule)}"
        case "const":
            return f"{place}: must be {rule}"
        case "enum":
            return f"{place}: must be {' or '.join(map(str, rule))}"
        case "pattern":
            return f"{place}: must have the form {rule}"
        case "propertyNames" | "anyOf" | "oneOf":
            return f"{place}: has none of the forms allowed here"
        case other:
            return f"{place}: breaks {other} {rule}"
