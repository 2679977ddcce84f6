"""Tables on DuckDB: reading of CSV files with declared types, results as arrays, writing of the same bytes each time.

Ibis and Arrow import pandas, which takes longer than most stages, wherever values go in or come out; hence `bind`,
`arrays`, `rows` and `fetch` here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hxmlops_recipe.contract import Column
from hxmlops_recipe.recipe import IBIS_TYPES

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

_INTEGER = r"^\s*[+-]?[0-9]+\s*$"


@contextmanager
def database(scratch: Path) -> Iterator[Database]:
    """A database in memory; what does not fit there goes to the folder `scratch`, which is gone afterwards."""
    import ibis

    # DuckDB 2.0 moves try_cast into its CSV reader, which drops the rows where it fails (duckdb issue 23818).
    backend = ibis.duckdb.connect(temp_directory=scratch, disabled_optimizers="type_pushdown")
    try:
        yield Database(backend)
    finally:
        backend.disconnect()
        shutil.rmtree(scratch, ignore_errors=True)


class Database:
    """What a stage needs of a database. Tables are lazy Ibis expressions, but for `keep` and what takes values out."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def read_texts(self, file: Path, columns: Iterable[str]) -> ir.Table:
        """A CSV file (RFC 4180, UTF-8, with a header) as a table of texts; an empty field is NULL.

        Each query reads the file. Records that cannot be read stay out of it, and `rejected` lists them.
        """
        return self._backend.read_csv(
            file,
            auto_detect=False,
            header=True,
            delim=",",
            quote='"',
            escape='"',
            strict_mode=True,
            columns=dict.fromkeys(columns, "VARCHAR"),
            store_rejects=True,
        )

    def rejected(self) -> list[tuple[str, int]]:
        """(DuckDB's error type, line) of the records that queries of `read_texts` had to leave out so far."""
        query = "SELECT DISTINCT error_type::VARCHAR, line FROM reject_errors ORDER BY ALL"
        return list(self._backend.con.sql(query).fetchall())

    def read_parquet(self, file: Path | list[Path]) -> ir.Table:
        return self._backend.read_parquet(file)

    def bind(self, name: str, columns: Mapping[str, NDArray[Any]]) -> ir.Table:
        """Make arrays known as a table, without copying them and without their values in any query's text."""
        self._backend.con.register(name, dict(columns))
        return self._backend.table(name)

    def keep(self, name: str, table: ir.Table) -> ir.Table:
        """Compute a table once and hold it."""
        self._backend.con.execute(f'CREATE TABLE "{name}" AS {self._backend.compile(table)}')
        return self._backend.table(name)

    def arrays(self, table: ir.Table) -> dict[str, NDArray[Any]]:
        """The columns as numpy arrays. Columns of numbers that miss none are plain arrays, others may be masked."""
        columns: dict[str, NDArray[Any]] = self._backend.con.sql(self._backend.compile(table)).fetchnumpy()
        return columns

    def rows(self, table: ir.Table) -> list[dict[str, Any]]:
        found = self._backend.con.sql(self._backend.compile(table))
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def write_parquet(self, table: ir.Table, file: Path) -> None:
        """Write a table; one in a total order gives the same bytes each time."""
        self._backend.to_parquet(table, file, compression="zstd")


def typed(texts: ir.Table, columns: Mapping[str, Column]) -> dict[str, ir.Value]:
    """{column: its values in the declared type}, NULL where a text is none of that type."""
    return {name: _typed(texts[name], column.type) for name, column in columns.items()}


def _typed(text: ir.StringColumn, kind: str) -> ir.Value:
    import ibis

    if kind == "integer":  # a plain cast would round 1.5
        return ibis.cases((text.re_search(_INTEGER), text.try_cast(IBIS_TYPES[kind])))
    if kind == "number":  # a plain cast takes nan and inf
        number = text.try_cast(IBIS_TYPES[kind])
        return ibis.cases((~number.isnan() & ~number.isinf(), number))
    if kind == "boolean":
        return ibis.cases((text.lower() == "true", True), (text.lower() == "false", False))
    return text
