"""Many records, made in the tables themselves, and the paths under which clients ask for them."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from postgres import PostgreSQL

PER_NAME = 100  # versions of each name


def fill_mlflow(folder: Path, count: int) -> None:
    """As many versions in MLflow's own tables, of the same names."""
    series = f"""WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count})"""  # noqa: S608
    then = 1_767_225_600_000
    with contextlib.closing(sqlite3.connect(folder / "db.sqlite")) as connection:
        for statement in (
            f"""INSERT INTO registered_models (name, creation_time, last_updated_time) {series}
                SELECT DISTINCT 'model-' || ((n - 1) / {PER_NAME}), {then}, {then} FROM series""",  # noqa: S608
            f"""INSERT INTO model_versions
                (name, version, creation_time, last_updated_time, current_stage, source, storage_location, status)
                {series} SELECT 'model-' || ((n - 1) / {PER_NAME}), (n - 1) % {PER_NAME} + 1, {then}, {then}, 'None',
                's3://models/' || n, 's3://models/' || n, 'READY' FROM series""",  # noqa: S608
            "ANALYZE",
        ):
            connection.execute(statement)
        connection.commit()


def by_id(numbers: Sequence[int]) -> list[str]:
    return [f"/api/v1/model/{number}/data" for number in numbers]


def by_version(numbers: Sequence[int]) -> list[str]:
    return [f"/api/v1/model/{number}/data?version={version_of(number)}" for number in numbers]


def pages(numbers: Sequence[int]) -> list[str]:
    return [f"/api/v1/model_catalog?limit=100&after={max(number - 101, 0)}" for number in numbers]


def pages_of_name(numbers: Sequence[int]) -> list[str]:
    return [f"/api/v1/model_catalog?limit=100&name={name_of(number)}" for number in numbers]


def name_of(number: int) -> str:
    return f"model-{(number - 1) // PER_NAME}"


def version_of(number: int) -> str:
    return f"1.0.{(number - 1) % PER_NAME}"


def filling(first: int, last: int, digest: str, as_json: str) -> list[str]:
    """SQL that adds versions numbered behind `first` to `last`, with an object each."""
    series = f"""WITH RECURSIVE series(n) AS (SELECT {first + 1} UNION ALL SELECT n + 1 FROM series WHERE n < {last}),
        parts AS (SELECT n, (n - 1) / {PER_NAME} AS m, (n - 1) % {PER_NAME} AS v FROM series)"""  # noqa: S608 (numbers)
    then = "'2026-01-01T00:00:00.000000Z'"
    segments = as_json.format("""'[["objects/00/' || n || '", 4096]]'""")
    return [
        f"""INSERT INTO models (id, name, version, version_key, tag, sha256, upload_digest, created_at, created_by,
            status, library, library_version, domain, parameters, characteristics, size) {series}
            SELECT n, 'model-' || m, '1.0.' || v, '0011 0010 00' || length('' || v) || v || ' ~', 'tag',
            {digest}, {digest}, {then}, 'benchmark', 'production', 'onnx', '1.22', 'churn',
            '{{"trees": 100}}', '{{"accuracy": 0.9}}', 4096 FROM parts""",  # noqa: S608 (numbers and our own words)
        f"""INSERT INTO objects (sha256, size, segments, created_at) {series}
            SELECT {digest}, 4096, {segments}, {then} FROM parts""",  # noqa: S608
    ]


def fill_sqlite(path: Path, first: int, last: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in filling(first, last, "printf('sha256:%064d', n)", "{}"):
            connection.execute(statement)
        connection.execute("ANALYZE")
        connection.commit()


def fill_postgresql(postgres: PostgreSQL, settings: Mapping[str, Any], first: int, last: int) -> None:
    for statement in (
        *filling(first, last, "'sha256:' || lpad('' || n, 64, '0')", "CAST({} AS json)"),
        "SELECT setval(pg_get_serial_sequence('models', 'id'), (SELECT max(id) FROM models))",
        "VACUUM ANALYZE",
    ):
        postgres.sql(statement, database_of(settings))


def database_of(settings: Mapping[str, Any]) -> str:
    return str(settings["database"]).rpartition("/")[2]
