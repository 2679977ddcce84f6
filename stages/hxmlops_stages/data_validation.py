"""Stage data_validation: is the table what the contract says it is?

At the owner (`table: raw`) a CSV file is read by the contract's schema, every violation counted, and the
typed table written in the order of its subjects. At the vendor (`table: released`) a Parquet file is checked
against the columns and statistics that the owner's signed protection statement gives.

report.json names rows by a keyed token, never by value or number; private/rows.csv, for the owner's eyes,
gives the record (the header is 1) behind each token.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import write_atomic, write_private
from hxmlops_evidence.keys import read_secret
from hxmlops_recipe.contract import Contract, read_columns
from hxmlops_stages.keyed_hashes import derive, token
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.schema_rules import (
    ROW,
    Rule,
    Violation,
    count,
    count_duplicates,
    identifier_rule,
    likely_identifier,
    value_rules,
)
from hxmlops_stages.table_statistics import describe, differences

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.contract import Column
    from hxmlops_recipe.tables import Database

_HEAD_BYTES = 1 << 20
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f"))
_TYPED = "typed "  # before the name of a column in its declared type, beside its text
_SAID = 5
_SEE = "report.json of this stage names the rows by token, private/rows.csv beside it their lines"
# DuckDB's error types, as rules of ours, and what to say of the records that break these.
_KINDS = {"INVALID ENCODING": "encoding", "UNQUOTED VALUE": "quotes", "LINE SIZE OVER MAXIMUM": "length"}
_UNREADABLE = {
    "encoding": "are not in UTF-8; save the file as UTF-8",
    "fields": "have more or fewer fields than the header; quote fields that hold commas",
    "quotes": "have a quote that does not end; double the quotes within fields",
    "length": "are too long; is it a CSV file?",
}


def run(context: Context) -> Outcome:
    """BadInput for what cannot be read, Refused("schema") for what breaks the schema; report.json tells all."""
    if context.parameters["table"] == "raw":
        return _raw(context)
    return _released(context)


def _raw(context: Context) -> Outcome:
    import duckdb

    from hxmlops_recipe.tables import database

    contract = Contract.from_mapping(context.contract)
    file = context.input / "data.csv"
    header = read_header(file, contract)
    with database(context.output.parent / "scratch") as tables:
        texts = tables.read_texts(file, header)
        known = {name: column for name, column in contract.schema.columns.items() if name in header}
        table = _numbered(texts, known)
        try:
            rows, violations = _count_raw(tables, table, contract, known)
        except duckdb.InvalidInputException:
            raise BadInput(f"{file.resolve()}: is not CSV") from None
        unknown = [name for name in header if name not in known]
        missing = [name for name in contract.schema.columns if name not in known]
        violations = [
            *(Violation(name, "missing_column", rows) for name in missing),
            *(Violation(name, "unknown_column", rows, (), likely_identifier(tables, texts, name)) for name in unknown),
            *violations,
        ]
        unreadable = _unreadable(tables)
        _report(context, rows, unreadable + violations)
        if unreadable:
            first = unreadable[0]
            raise BadInput(f"{file.resolve()}: {first.count} records {_UNREADABLE[first.rule]} ({_SEE})")
        if not rows:
            raise BadInput(f"{file.resolve()}: has a header but no rows")
        _refuse(f"{file.resolve()}", violations)
        typed = {name: table[_TYPED + name] for name in contract.schema.columns}
        typed_table = table.select(**typed).order_by(contract.schema.subject)
        tables.write_parquet(typed_table, context.output / "data.parquet")
    return Outcome(f"{rows} rows of {len(known)} columns keep the schema", {"rows": rows, "columns": len(known)})


def read_header(file: Path, contract: Contract) -> list[str]:
    """The names in the file's first line. BadInput when it is no CSV file in UTF-8 with a header."""
    where = file.resolve()
    if not file.is_file():
        raise BadInput(f"{where}: no such file; give the path of a CSV file")
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise BadInput(f"{where}: is empty; it needs a header and rows")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{where}: is in UTF-16; save it as UTF-8")
    if head.translate(None, _CONTROLS) != head:
        raise BadInput(f"{where}: is not CSV but a binary file")
    try:
        first = head.split(b"\n", 1)[0].decode("utf-8-sig")
        names = next(csv.reader(io.StringIO(first), strict=True))
    except UnicodeDecodeError:
        raise BadInput(f"{where}: is not in UTF-8; save it as UTF-8") from None
    except (csv.Error, StopIteration):
        raise BadInput(f"{where}: is not CSV: its first line is no header") from None
    separator = next((each for each in ";\t|" if len(names) == 1 and each in first), None)
    if separator:
        raise BadInput(f"{where}: its fields are separated by {separator!r}; separate them by commas")
    if not set(names) & set(contract.schema.columns):
        raise BadInput(f"{where}: its first line names none of the contract's columns; it must be the header")
    if "" in names or len(set(names)) < len(names):
        raise BadInput(f"{where}: its header has a column without a name or the same name twice")
    return names


def _numbered(texts: ir.Table, known: Mapping[str, Column]) -> ir.Table:
    """Texts beside typed values, and the number of each record in the file, where the header is 1."""
    import ibis

    from hxmlops_recipe.tables import typed

    values = {_TYPED + name: value for name, value in typed(texts, known).items()}
    return texts.mutate(**values, **{ROW: ibis.row_number() + 2})


def _count_raw(
    tables: Database, table: ir.Table, contract: Contract, known: Mapping[str, Column]
) -> tuple[int, list[Violation]]:
    rules: list[Rule] = []
    for name, column in known.items():
        text, value = table[name], table[_TYPED + name]
        rules.append(Rule(name, "type", text.notnull() & value.isnull()))
        if not column.nullable:
            rules.append(Rule(name, "null", text.isnull()))
        rules += value_rules(name, value, column)
        if column.type == "string" and column.values is None and name in contract.released:
            rules.append(identifier_rule(name, value))
    rows, violations = count(tables, table, rules)
    unique = [name for name, column in known.items() if column.unique or name == contract.schema.subject]
    return rows, violations + count_duplicates(tables, table, {name: table[_TYPED + name] for name in unique})


def _unreadable(tables: Database) -> list[Violation]:
    """Records that the CSV reader could not read, by kind."""
    lines: dict[str, set[int]] = {}
    for kind, line in tables.rejected():
        lines.setdefault(_KINDS.get(kind, "fields"), set()).add(line)
    return [Violation("*", rule, len(at), tuple(sorted({min(at), max(at)}))) for rule, at in lines.items()]


def _released(context: Context) -> Outcome:
    import duckdb
    import ibis

    from hxmlops_recipe.recipe import IBIS_TYPES
    from hxmlops_recipe.tables import database

    contract = Contract.from_mapping(context.contract)
    body = json.loads((context.input / "protection.json").read_bytes())["body"]
    declared = read_columns(body["schema_columns"], "protection.json: schema_columns")
    file = context.input / "data.parquet"
    with database(context.output.parent / "scratch") as tables:
        try:
            table = tables.read_parquet(file)
        except (duckdb.Error, OSError):
            raise BadInput(f"{file.resolve()}: is no Parquet file") from None
        types = {name: str(kind) for name, kind in table.schema().items()}
        violations = [Violation(name, "missing_column", 1) for name in declared if name not in types]
        violations += [Violation(name, "unknown_column", 1) for name in types if name not in declared]
        rules: list[Rule] = []
        for name, column in declared.items():
            if types.get(name) == IBIS_TYPES[column.type]:
                if not column.nullable:
                    rules.append(Rule(name, "null", table[name].isnull()))
                rules += value_rules(name, table[name], column)
            elif name in types:
                violations.append(Violation(name, "type", 1))
        table = table.mutate(**{ROW: ibis.row_number() + 1})
        rows, broken = count(tables, table, rules)
        violations += broken
        if not violations:
            statistics = describe(tables, table.drop(ROW), at_least=contract.protection.k)
            different = differences(statistics, body["statistics"])
            violations = [Violation(figure, "statistics", rows) for figure in different]
        _report(context, rows, violations)
        _refuse(str(file.resolve()), violations)
    shutil.copyfile(file, context.output / "data.parquet")
    return Outcome(f"{rows} rows are what the protection statement says", {"rows": rows, "columns": len(declared)})


def _report(context: Context, rows: int, violations: Sequence[Violation]) -> None:
    """Write report.json, and for the owner private/rows.csv."""
    secret = read_secret(context.domain / "keys/pseudonym.key")
    key = derive(secret, "row token", context.workflow["id"])
    tokens = {row: token(key, row) for violation in violations for row in violation.rows}
    entries = [
        {
            "column": violation.column,
            "rule": violation.rule,
            "count": violation.count,
            "examples": [tokens[row] for row in violation.rows],
            **({"looks_like": violation.looks_like} if violation.looks_like else {}),
        }
        for violation in violations
    ]
    table = context.parameters["table"]
    report = {"table": table, "rows": rows, "valid": not violations, "violations": entries}
    write_atomic(context.output / "report.json", json.dumps(report, indent=1).encode())
    if table == "raw":
        lines = "".join(f"{tokens[row]},{row}\n" for row in sorted(tokens))
        write_private(context.output / "private/rows.csv", f"token,line\n{lines}".encode())


def _refuse(where: str, violations: Sequence[Violation]) -> None:
    if violations:
        said = ", ".join(str(violation) for violation in violations[:_SAID])
        more = f" and {len(violations) - _SAID} more" if len(violations) > _SAID else ""
        raise Refused("schema", f"{where} breaks the schema: {said}{more} ({_SEE})")
