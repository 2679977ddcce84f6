"""data_validation tells what is wrong with a table, by column and rule, and never shows a value of it."""

from __future__ import annotations

import copy
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.keys import make_keys
from hxmlops_recipe.tables import database
from hxmlops_stages import data_validation
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.table_statistics import describe

CHURN = Path(__file__).parents[2] / "workflows/churn"
CONTRACT: dict[str, Any] = {
    "schema": {
        "subject": "id",
        "target": "left",
        "columns": {
            "id": {"type": "integer", "minimum": 1},
            "state": {"type": "string", "pattern": "^[A-Z]{2}$"},
            "plan": {"type": "string", "values": ["basic", "plus"]},
            "minutes": {"type": "number", "minimum": 0, "maximum": 1440, "nullable": True},
            "note": {"type": "string", "nullable": True},
            "left": {"type": "boolean"},
        },
    },
    "recipe": {
        "drop": ["id"],
        "quasi_identifiers": {"state": {"levels": ["value", "all"]}},
        "k": 2,
        "suppression_limit": 0.1,
        "hidden_share": 0.2,
    },
    "model": {
        "task": "classification",
        "format": "onnx",
        "features": {"minutes": "number"},
        "output": {"name": "probabilities", "index": 1, "positive": True},
        "metrics": ["roc_auc"],
    },
}
HEADER = "id,state,plan,minutes,note,left\n"
GOOD = HEADER + "2,CA,basic,1.5,,true\n1,NY,plus,,likes music,false\n"


@dataclass
class Validation:
    """A domain that validates tables; `output` is what the last run left."""

    folder: Path

    def __call__(self, table: str, files: dict[str, bytes], contract: dict[str, Any] = CONTRACT) -> Outcome:
        self.output = self.folder / "output"
        given = self.folder / "input"
        for folder in (given, self.output):
            folder.mkdir()
        for name, data in files.items():
            (given / name).write_bytes(data)
        spec = {"workflow": {"id": "churn"}, "contract": contract, "parameters": {"table": table}}
        return data_validation.run(Context(spec, given, self.output, self.folder / "domain", "run-1", "NO"))

    def raw(self, text: str | bytes, contract: dict[str, Any] = CONTRACT) -> Outcome:
        return self("raw", {"data.csv": text if isinstance(text, bytes) else text.encode()}, contract)

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "report.json").read_bytes())
        return found

    @property
    def violations(self) -> dict[tuple[str, str], int]:
        return {(each["column"], each["rule"]): each["count"] for each in self.report["violations"]}


@pytest.fixture
def validate(tmp_path: Path) -> Iterator[Validation]:
    make_keys(tmp_path / "domain/keys")
    yield Validation(tmp_path)
    assert not (tmp_path / "scratch").exists()


def test_a_table_that_keeps_the_schema_becomes_typed_parquet_in_the_order_of_its_subjects(validate: Validation) -> None:
    outcome = validate.raw(GOOD)
    assert outcome.metrics == {"rows": 2, "columns": 6}
    assert validate.report == {"table": "raw", "rows": 2, "valid": True, "violations": []}
    table = pq.read_table(validate.output / "data.parquet")
    assert table.to_pylist() == [
        {"id": 1, "state": "NY", "plan": "plus", "minutes": None, "note": "likes music", "left": False},
        {"id": 2, "state": "CA", "plan": "basic", "minutes": 1.5, "note": None, "left": True},
    ]


def test_columns_may_come_in_any_order_with_quotes_byte_order_mark_and_dos_line_ends(validate: Validation) -> None:
    validate.raw('\ufeff"left","id",state,plan,note,minutes\r\ntrue,1,CA,plus,"a, ""b""\nc",3\r\n')
    table = pq.read_table(validate.output / "data.parquet")
    assert table.column_names == ["id", "state", "plan", "minutes", "note", "left"]
    assert table["note"].to_pylist() == ['a, "b"\nc']


def test_the_churn_data_keeps_its_schema(validate: Validation) -> None:
    contract = yaml.safe_load((CHURN / "workflow.yml").read_text())["contract"]
    outcome = validate.raw((CHURN / "data/mlc_churn.csv").read_bytes(), contract)
    assert outcome.metrics == {"rows": 5000, "columns": 21}


BROKEN = {
    ("id", "type"): "1.5,CA,plus,1,,true",
    ("id", "null"): ",CA,plus,1,,true",
    ("id", "minimum"): "0,CA,plus,1,,true",
    ("id", "duplicate"): "2,CA,plus,1,,true",
    ("state", "pattern"): "9,Cal,plus,1,,true",
    ("plan", "values"): "9,CA,Plus,1,,true",
    ("minutes", "type"): "9,CA,plus,nan,,true",
    ("minutes", "maximum"): "9,CA,plus,1441,,true",
    ("left", "type"): "9,CA,plus,1,,yes",
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_row_that_breaks_a_rule_is_counted_and_named_by_a_token(validate: Validation, rule: tuple[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        validate.raw(GOOD + BROKEN[rule] + "\n")
    assert refused.value.criterion == "schema"
    assert f"{rule[0]} {rule[1]} in 1 row" in refused.value.reason
    assert validate.violations == {rule: 1}
    assert not (validate.output / "data.parquet").exists()
    private = validate.output / "private/rows.csv"
    lines = dict(line.split(",") for line in private.read_text().splitlines())
    examples = validate.report["violations"][0]["examples"]
    assert [lines[token] for token in examples] == (["2", "4"] if rule[1] == "duplicate" else ["4"])
    assert all(len(token) == 16 for token in examples)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_every_violation_is_counted_with_its_first_and_last_row(validate: Validation) -> None:
    rows = "".join(f"{number},ca,gold,-1,,true\n" for number in range(1, 8))
    with pytest.raises(Refused, match="state pattern in 7 rows, plan values in 7 rows, minutes minimum in 7 rows"):
        validate.raw(HEADER + rows)
    assert validate.violations == {("state", "pattern"): 7, ("plan", "values"): 7, ("minutes", "minimum"): 7}
    assert len(validate.report["violations"][0]["examples"]) == 2


def test_a_missing_column_is_refused(validate: Validation) -> None:
    with pytest.raises(Refused, match="left missing_column "):
        validate.raw("id,state,plan,minutes,note\n1,CA,plus,1,\n")


@pytest.mark.parametrize(
    ("values", "looks_like"),
    [
        (["+4790012345", "+4790012346"], "MSISDN"),
        (["4790012345", "0047 900 12 347"], "MSISDN"),
        (["242011234567890", "242019876543210"], "IMSI or IMEI"),
        (["ada@example.org", "grace@example.com"], "e-mail address"),
        (["192.0.2.1", "198.51.100.7"], "IPv4 address"),
        (["2001:db8::1", "2001:db8::2"], "IPv6 address"),
        (["red", "blue"], None),
    ],
)
def test_a_column_that_the_schema_does_not_name_is_refused(
    validate: Validation, values: list[str], looks_like: str | None
) -> None:
    rows = "".join(f"{number},CA,plus,1,,true,{value}\n" for number, value in enumerate(values, 1))
    with pytest.raises(Refused) as refused:
        validate.raw(HEADER.replace("left", "left,contact") + rows)
    assert "contact unknown_column" in refused.value.reason
    assert validate.report["violations"][0].get("looks_like") == looks_like
    assert ("looks like" in refused.value.reason) == (looks_like is not None)
    assert not any(value in refused.value.reason for value in values)


def test_a_released_text_column_may_not_hold_a_direct_identifier(validate: Validation) -> None:
    with pytest.raises(Refused, match="note direct_identifier in 1 row"):
        validate.raw(GOOD + "3,CA,plus,1,ada@example.org,true\n")


def test_a_dropped_text_column_may_hold_one(validate: Validation) -> None:
    contract = copy.deepcopy(CONTRACT)
    contract["recipe"]["drop"].append("note")
    validate.raw(GOOD + "3,CA,plus,1,ada@example.org,true\n", contract)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "header only": (HEADER.encode(), "has a header but no rows"),
    "binary": (bytes(range(256)) * 20, "is not CSV but a binary file"),
    "UTF-16": (GOOD.encode("utf-16"), "is in UTF-16; save it as UTF-8"),
    "Latin-1 header": ("id,größe\n1,2\n".encode("latin-1"), "is not in UTF-8"),
    "Latin-1 row": ((GOOD + "3,CA,plus,1,größer,true\n").encode("latin-1"), "1 records are not in UTF-8"),
    "ragged rows": ((GOOD + "3,CA\n4,CA,plus,1,,true,7\n").encode(), "2 records have more or fewer fields"),
    "open quote": ((GOOD + '3,CA,plus,1,"open,true\n').encode(), "1 records have a quote that does not end"),
    "other separator": (GOOD.replace(",", ";").encode(), "its fields are separated by ';'"),
    "no header": (GOOD.removeprefix(HEADER).encode(), "its first line names none of the contract's columns"),
    "same name twice": (b"id,id\n1,2\n", "the same name twice"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_file_that_cannot_be_read_is_told_in_one_line(validate: Validation, what: str) -> None:
    data, says = UNREADABLE[what]
    with pytest.raises(BadInput) as problem:
        validate.raw(data)
    assert says in str(problem.value)
    assert "data.csv" in str(problem.value)
    assert "\n" not in str(problem.value)
    assert not (validate.output / "data.parquet").exists()


def test_a_missing_file_is_told(validate: Validation) -> None:
    with pytest.raises(BadInput, match=r"data\.csv: no such file"):
        validate("raw", {})


def test_unreadable_records_are_in_the_report_too(validate: Validation) -> None:
    with pytest.raises(BadInput):
        validate.raw(GOOD + "3,CA\n")
    assert validate.violations == {("*", "fields"): 1}
    assert validate.report["valid"] is False


# At the vendor.


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """The files of a release, {"data.parquet", "protection.json"}; `changes` are made to the table afterwards."""
    table = pa.table({"state": ["CA", "CA", "NY", "NY"], "minutes": [1.0, 2.0, None, 4.0], "left": [True] * 4})
    columns = {
        "state": {"type": "string", "values": ["CA", "NY"]},
        "minutes": {"type": "number", "minimum": 0, "nullable": True},
        "left": {"type": "boolean"},
    }

    def make(**changes: Any) -> dict[str, bytes]:
        file = tmp_path / "release.parquet"
        pq.write_table(table, file)
        with database(tmp_path / "scratch of fixture") as tables:
            statistics = describe(tables, tables.read_parquet(file), at_least=2)
        changed = table
        for name, values in changes.items():
            changed = changed.drop_columns([name]) if name in changed.column_names else changed
            changed = changed.append_column(name, values) if values is not None else changed
        pq.write_table(changed, file)
        body = {"schema_columns": columns, "statistics": statistics}
        return {"data.parquet": file.read_bytes(), "protection.json": json.dumps({"body": body}).encode()}

    return make


def test_a_release_that_is_what_its_statement_says_passes_unchanged(
    validate: Validation, released: Callable[..., dict[str, bytes]]
) -> None:
    files = released()
    outcome = validate("released", files)
    assert outcome.metrics == {"rows": 4, "columns": 3}
    assert (validate.output / "data.parquet").read_bytes() == files["data.parquet"]
    assert not (validate.output / "private").exists()


@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({"left": None}, "left missing_column"),
        ({"extra": [[1, 2, 3, 4]]}, "extra unknown_column"),
        ({"left": [["yes"] * 4]}, "left type"),
        ({"left": [pa.array([True, None, True, True])]}, "left null"),
        ({"state": [["CA", "CA", "NY", "UT"]]}, "state values"),
        ({"minutes": [np.array([-1.0, 2.0, 3.0, 4.0])]}, "minutes minimum"),
        ({"minutes": [pa.array([1.0, 2.0, None, 5.0])]}, "minutes mean statistics"),
        ({"state": [["CA", "CA", "CA", "NY"]]}, "state counts statistics"),
    ],
)
def test_a_release_that_differs_from_its_statement_is_refused(
    validate: Validation, released: Callable[..., dict[str, bytes]], changes: dict[str, Any], violation: str
) -> None:
    with pytest.raises(Refused, match=violation) as refused:
        validate("released", released(**changes))
    assert refused.value.criterion == "schema"
    assert not (validate.output / "data.parquet").exists()


def test_a_release_that_is_no_parquet_file_is_told(
    validate: Validation, released: Callable[..., dict[str, bytes]]
) -> None:
    with pytest.raises(BadInput, match="is no Parquet file"):
        validate("released", released() | {"data.parquet": b"PAR1"})
