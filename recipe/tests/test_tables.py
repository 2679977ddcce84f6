"""A CSV file is read with the contract's types; what is none of them becomes NULL and can be counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hxmlops_recipe.contract import read_columns
from hxmlops_recipe.tables import Database, database, typed

# Ibis 12 looks a table's columns up through a call that DuckDB 2 has renamed.


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Database]:
    with database(tmp_path / "scratch") as opened:
        yield opened
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        ("integer", ["1", "-2", "+3", "1.5", "1e3", "x", ""], [1, -2, 3, None, None, None, None]),
        ("number", ["1", "1.5", "-1e3", "nan", "inf", "x", ""], [1.0, 1.5, -1000.0, None, None, None, None]),
        ("boolean", ["true", "False", "yes", "1", ""], [True, False, None, None, None]),
        ("string", ["a,b", 'say "x"', "ä", ""], ["a,b", 'say "x"', "ä", None]),
    ],
)
def test_texts_become_values_of_their_type(
    tables: Database, tmp_path: Path, kind: str, texts: list[str], values: list[Any]
) -> None:
    file = tmp_path / "data.csv"
    quoted = ['"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text for text in texts]
    file.write_text("n,column\n" + "".join(f"{number},{text}\n" for number, text in enumerate(quoted)))
    table = tables.read_texts(file, ["n", "column"])
    result = table.select(**typed(table, read_columns({"column": {"type": kind}})))
    assert [row["column"] for row in tables.rows(result)] == values
    assert tables.rejected() == []


def test_records_that_cannot_be_read_are_listed_by_line(tables: Database, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(b"a,b\n1,x\n2\n3,y,z\n4,\xff\n5,w\n")
    assert tables.rows(tables.read_texts(file, ["a", "b"])) == [{"a": "1", "b": "x"}, {"a": "5", "b": "w"}]
    assert tables.rejected() == [("INVALID ENCODING", 5), ("MISSING COLUMNS", 3), ("TOO MANY COLUMNS", 4)]


def test_a_table_in_a_total_order_is_written_to_the_same_bytes(tables: Database, tmp_path: Path) -> None:
    numbers = tables.bind("numbers", {"a": np.arange(200_000)})
    scrambled = tables.keep("scrambled", numbers.select(a=numbers.a * 7919 % 200_003))
    for name in ("first", "second"):
        tables.write_parquet(scrambled.order_by("a"), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
