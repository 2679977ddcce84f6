"""The contract of a workflow, checked: schema of the raw data, rules for its protection, shape of the model.

Every mistake raises ValueError with one line: where in the file, what is wrong, what would be right. Values
of data never appear in it, for a contract holds none. The parts are dataclasses; their order is the order of
the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hxmlops_recipe.checks import Checked, fail
from hxmlops_recipe.ladders import QuasiIdentifier, read_ladder

TYPES = ("integer", "number", "string", "boolean")
ONE_HOT, NUMBER = "one_hot", "number"
METRICS = {"classification": ("roc_auc", "average_precision", "brier"), "regression": ("mae", "rmse", "r2")}
PSEUDONYM = "pseudonym"
MOST_COMBINATIONS = 20_000


@dataclass(frozen=True)
class Column:
    """A raw column. `minimum` and `maximum` are in `unit`; `values` lists all that may occur."""

    type: str
    nullable: bool = False
    unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str | int, ...] | None = None
    pattern: str | None = None
    unit: str | None = None
    description: str | None = None

    @property
    def numeric(self) -> bool:
        return self.type in ("integer", "number")


@dataclass(frozen=True)
class Schema:
    """The raw table: `subject` names the column that tells data subjects apart, `target` what a model
    predicts.
    """

    subject: str
    target: str
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Sensitive:
    """Limits for a sensitive column: at least `l` distinct values in a class, at most the distance `t`."""

    l: int | None = None  # noqa: E741  (the field's own name)
    t: float | None = None


@dataclass(frozen=True)
class Protection:
    """The contract's `recipe`: what must hold before rows may leave. Shares are between 0 and 1."""

    drop: tuple[str, ...]
    quasi_identifiers: Mapping[str, QuasiIdentifier]
    sensitive: Mapping[str, Sensitive]
    k: int
    suppression_limit: float
    hidden_share: float
    pseudonym: bool = False


@dataclass(frozen=True)
class Output:
    """Which of the model's outputs is read; `positive` is the target's value that counts as 1."""

    name: str
    index: int
    positive: str | int | bool | None = None


@dataclass(frozen=True)
class Model:
    """Task, file format, the features in their order (released column -> one_hot or number), output and
    metrics.
    """

    task: str
    format: str
    features: Mapping[str, str]
    output: Output
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    schema: Schema
    protection: Protection
    model: Model
    released: tuple[str, ...] = field(default=())

    @classmethod
    def from_mapping(cls, mapping: Any) -> Contract:
        """Check a contract as a workflow file holds it. Raises ValueError (one line) at the first mistake."""
        top = Checked(mapping, "contract").keys(required=("schema", "recipe", "model"))
        schema = _schema(top.mapping("schema"))
        protection = _protection(top.mapping("recipe"), schema)
        released = tuple(name for name in schema.columns if name not in protection.drop)
        model = _model(top.mapping("model"), schema, protection, released)
        return cls(schema, protection, model, released)


def read_columns(mapping: Any, path: str = "columns") -> dict[str, Column]:
    """Check the declarations of columns, `{name: {type, ...}}`. Raises ValueError (one line)."""
    columns = Checked(mapping, path)
    if not columns.value:
        fail(path, "name at least one column")
    return {name: _column(columns.mapping(name)) for name in columns.value}


def _schema(part: Checked) -> Schema:
    part.keys(required=("subject", "target", "columns"))
    columns = read_columns(part.get("columns"), f"{part.path}.columns")
    subject = part.choice("subject", columns, "a column of the schema")
    target = part.choice("target", columns, "a column of the schema")
    if subject == target:
        fail(f"{part.path}.target", "cannot be the subject")
    for what, name in (("subject", subject), ("target", target)):
        if columns[name].nullable:
            fail(f"{part.path}.columns.{name}.nullable", f"the {what} cannot be missing; set it to false")
    if columns[subject].type not in ("integer", "string"):
        fail(f"{part.path}.columns.{subject}.type", "the subject is an integer or a string")
    if PSEUDONYM in columns:
        fail(f"{part.path}.columns.{PSEUDONYM}", "this name is kept for the pseudonym; rename the column")
    return Schema(subject, target, columns)


def _column(part: Checked) -> Column:
    part.keys(
        required=("type",),
        optional=("nullable", "unique", "minimum", "maximum", "values", "pattern", "unit", "description"),
    )
    kind = part.choice("type", TYPES, f"one of {', '.join(TYPES)}")
    numeric = kind in ("integer", "number")
    bounds = {}
    for key in ("minimum", "maximum"):
        bounds[key] = part.number(key) if key in part.value else None
        if bounds[key] is not None and not numeric:
            fail(f"{part.path}.{key}", f"has no meaning for a {kind}")
    low, high = bounds["minimum"], bounds["maximum"]
    if low is not None and high is not None and low > high:
        fail(f"{part.path}.minimum", "is above the maximum")
    pattern = part.pattern("pattern") if "pattern" in part.value else None
    if pattern is not None and kind != "string":
        fail(f"{part.path}.pattern", f"has no meaning for a {kind}")
    return Column(
        type=kind,
        nullable=part.boolean("nullable", default=False),
        unique=part.boolean("unique", default=False),
        minimum=low,
        maximum=high,
        values=_values(part, kind),
        pattern=pattern,
        unit=part.text("unit") if "unit" in part.value else None,
        description=part.text("description") if "description" in part.value else None,
    )


def _values(part: Checked, kind: str) -> tuple[str | int, ...] | None:
    if "values" not in part.value:
        return None
    if kind not in ("string", "integer"):
        fail(f"{part.path}.values", f"has no meaning for a {kind}")
    expected = str if kind == "string" else int
    values = part.sequence("values")
    if not values or len(set(map(repr, values))) != len(values):
        fail(f"{part.path}.values", "list each value once, and at least one")
    for value in values:
        if not isinstance(value, expected) or isinstance(value, bool):
            hint = ' (quote it in YAML: "yes")' if isinstance(value, bool) else ""
            fail(f"{part.path}.values", f"{value!r} is not of type {kind}{hint}")
    return tuple(values)


def _protection(part: Checked, schema: Schema) -> Protection:
    part.keys(
        required=("drop", "quasi_identifiers", "k", "suppression_limit", "hidden_share"),
        optional=("sensitive", "pseudonym"),
    )
    drop = tuple(part.names("drop", schema.columns, "a column of the schema"))
    if schema.subject not in drop:
        fail(
            f"{part.path}.drop",
            f"must contain the subject {schema.subject} (recipe.pseudonym can stand for it)",
        )
    if schema.target in drop:
        fail(f"{part.path}.drop", f"cannot contain the target {schema.target}")
    ladders = _ladders(part.mapping("quasi_identifiers"), schema, drop)
    return Protection(
        drop=drop,
        quasi_identifiers=ladders,
        sensitive=_sensitive(part.mapping("sensitive"), schema, ladders) if "sensitive" in part.value else {},
        k=part.integer("k", at_least=2),
        suppression_limit=part.number("suppression_limit", at_least=0, below=1),
        hidden_share=part.number("hidden_share", above=0, below=1),
        pseudonym=part.boolean("pseudonym", default=False),
    )


def _ladders(part: Checked, schema: Schema, drop: tuple[str, ...]) -> dict[str, QuasiIdentifier]:
    if not part.value:
        fail(part.path, "name at least one column that others could know a person by")
    ladders, combinations = {}, 1
    for name in part.value:
        part.known(name, schema.columns, "a column of the schema")
        if name in drop or name == schema.target:
            fail(f"{part.path}.{name}", "is dropped" if name in drop else "is the target")
        column = schema.columns[name]
        ladders[name] = read_ladder(part.mapping(name), column.type, column.values)
        combinations *= len(ladders[name].levels)
    if combinations > MOST_COMBINATIONS:
        fail(part.path, f"{combinations} combinations of levels are too many (at most {MOST_COMBINATIONS})")
    return ladders


def _sensitive(part: Checked, schema: Schema, ladders: Mapping[str, QuasiIdentifier]) -> dict[str, Sensitive]:
    result = {}
    for name in part.value:
        part.known(name, schema.columns, "a column of the schema")
        limits = part.mapping(name).keys(optional=("l", "t"))
        column = schema.columns[name]
        if name in ladders or column.nullable:
            fail(
                limits.path,
                "is a quasi-identifier" if name in ladders else "a sensitive column cannot be nullable",
            )
        if not limits.value:
            fail(limits.path, "set l, t or both")
        diversity = limits.integer("l", at_least=1) if "l" in limits.value else None
        if diversity and column.values and diversity > len(column.values):
            fail(f"{limits.path}.l", f"{name} has only {len(column.values)} values")
        result[name] = Sensitive(diversity, limits.number("t", above=0, at_most=1) if "t" in limits.value else None)
    return result


def _model(part: Checked, schema: Schema, protection: Protection, released: tuple[str, ...]) -> Model:
    part.keys(required=("task", "format", "features", "output", "metrics"))
    task = part.choice("task", METRICS, f"one of {', '.join(METRICS)}")
    target = schema.columns[schema.target]
    if task == "regression" and not target.numeric:
        fail(f"{part.path}.task", f"regression needs a numeric target, {schema.target} is a {target.type}")
    return Model(
        task=task,
        format=part.choice("format", ("onnx",), "onnx"),
        features=_features(part.mapping("features"), schema, protection, released),
        output=_output(part.mapping("output"), task, schema),
        metrics=tuple(part.names("metrics", METRICS[task], f"one of {', '.join(METRICS[task])}")),
    )


def _features(part: Checked, schema: Schema, protection: Protection, released: tuple[str, ...]) -> dict[str, str]:
    if not part.value:
        fail(part.path, "name at least one column")
    for name in part.value:
        if name == schema.target or name in protection.drop:
            fail(f"{part.path}.{name}", "is the target" if name == schema.target else "is dropped")
        part.known(name, released, "a released column")
        encoding = part.choice(name, (ONE_HOT, NUMBER), f"{ONE_HOT} or {NUMBER}")
        column, ladder = schema.columns[name], protection.quasi_identifiers.get(name)
        texts = column.type == "string" or (ladder is not None and ladder.has_hierarchy)
        if encoding == NUMBER and texts:
            fail(f"{part.path}.{name}", "is released as a string; use one_hot")
        if encoding == ONE_HOT and column.type not in ("string", "integer") and not texts:
            fail(f"{part.path}.{name}", f"a {column.type} has no categories; use number")
    return dict(part.value)


def _output(part: Checked, task: str, schema: Schema) -> Output:
    classification = task == "classification"
    part.keys(required=("name", "index", "positive") if classification else ("name", "index"))
    positive = part.value.get("positive")
    target = schema.columns[schema.target]
    if classification and target.values is not None and positive not in target.values:
        fail(f"{part.path}.positive", f"is not among the values of {schema.target}")
    if classification and target.type == "boolean" and not isinstance(positive, bool):
        fail(f"{part.path}.positive", f"is true or false, for {schema.target} is a boolean")
    return Output(part.text("name"), part.integer("index", at_least=0), positive)
