"""The databases: their schema's history, their locks, their start; SQLite and PostgreSQL alike."""

import asyncio
import json
import signal
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import PostgreSQL
from sqlalchemy import Connection, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from hxmlops_sharing import audit, database, tables
from hxmlops_sharing.database import Database, DatabaseError, DatabaseUnavailable
from hxmlops_sharing.migrations import HEAD
from hxmlops_sharing.settings import Settings, read_settings

type Settle = Callable[..., Settings]


def settings_of(**given: Any) -> Settings:
    return read_settings(kind="model", auth="none", store="unused", **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "records.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, path: Path) -> Settings:
    """Settings that name a new database of each kind."""
    if request.param == "sqlite":
        return settings_of(database=path)
    server: PostgreSQL = request.getfixturevalue("postgres")
    return settings_of(**server.database())


def with_database[T](settings: Settings, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        opened = Database(settings)
        try:
            await opened.open()
            return await work(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


async def nothing(_: Database) -> None:
    pass


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "hxmlops_sharing:migrations")
    config.attributes["connection"] = connection
    return config


def test_the_migrations_make_the_tables_that_the_code_uses(settings: Settings) -> None:
    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), tables.metadata)

    async def compare(opened: Database) -> object:
        async with opened.read() as connection:
            return await connection.run_sync(differences)

    assert with_database(settings, compare) == []


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


def test_servers_that_start_at_once_migrate_once(settings: Settings) -> None:
    async def one() -> None:
        opened = Database(settings)
        await opened.open()
        await opened.close()

    async def together() -> None:
        await asyncio.gather(*(one() for _ in range(4)))

    asyncio.run(together())


def test_a_current_database_is_opened_without_alembic(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with_database(settings, nothing)
    monkeypatch.delattr(database, "_upgrade")
    with_database(settings, nothing)


def test_a_newer_database_is_refused(settings: Settings) -> None:
    async def age(opened: Database) -> None:
        async with opened.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            await connection.commit()

    with_database(settings, age)
    with pytest.raises(DatabaseError, match=r"has schema 9999, this server knows up to \d{4}: start a newer server$"):
        with_database(settings, nothing)


def test_what_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("this is no database, and long enough to tell " * 10)
    with pytest.raises(DatabaseError, match=rf"^database {path}: file is not a database: name an SQLite file"):
        with_database(settings_of(database=path), nothing)
    with pytest.raises(DatabaseError, match=r"^database .*: File exists: name an SQLite file"):
        with_database(settings_of(database=path / "below a file"), nothing)


def test_a_wrong_password_or_no_server_is_said_in_one_line(postgres: PostgreSQL) -> None:
    right = postgres.database()
    with pytest.raises(DatabaseError, match=r"^database hx_\w+: .*: check the name, the user, its password") as refused:
        with_database(settings_of(**right | {"database_password": "guessed-wrong"}), nothing)
    assert "guessed-wrong" not in str(refused.value)
    with pytest.raises(DatabaseError, match="check the name, the user, its password, and that PostgreSQL runs there"):
        with_database(settings_of(database="postgresql://127.0.0.1:1/none"), nothing)


def test_a_database_that_goes_away_is_unavailable_and_comes_back(postgres: PostgreSQL) -> None:
    async def go_and_come(opened: Database) -> None:
        await opened.check()
        await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await opened.check()
        await asyncio.to_thread(postgres.start)
        await opened.check()

    with_database(settings_of(**postgres.database()), go_and_come)


def test_writers_wait_for_each_other_from_their_start(settings: Settings) -> None:
    """Two servers on one database count up together: no update is lost."""

    async def count(opened: Database) -> None:
        for _ in range(20):
            async with opened.write() as connection:
                last = await audit.head(connection)
                await connection.execute(
                    text("INSERT INTO garbage VALUES (:location, :at)"), {"location": str(last.id), "at": "now"}
                )
                await audit.append(connection, audit.Line("test", "me"))
                await connection.commit()

    async def both(opened: Database) -> int:
        other = Database(settings)
        await asyncio.gather(count(opened), count(other))
        await other.close()
        async with opened.read() as connection:
            return len(list(await connection.execute(select(tables.garbage))))

    assert with_database(settings, both) == 40


@pytest.mark.parametrize("change", ["UPDATE audit SET client = 'someone else'", "DELETE FROM audit"])
def test_the_audit_is_append_only(settings: Settings, change: str) -> None:
    async def try_to(opened: Database) -> None:
        async with opened.write() as connection:
            await audit.append(connection, audit.Line("upload", "me"))
            await connection.commit()
        async with opened.write() as connection:
            await connection.execute(text(change))

    with pytest.raises(DBAPIError, match="the audit is append-only"):
        with_database(settings, try_to)


def test_records_of_the_first_schema_stay(path: Path) -> None:
    """A database of version 0.1.0: its versions keep their ids and bytes, its audit becomes the chain's beginning."""
    digest = "sha256:" + "ab" * 32
    path.parent.mkdir()
    with create_engine(f"sqlite:///{path}").begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            text(
                "INSERT INTO models VALUES (7, 'churn', '1', 'k', 'tag', :digest, :digest, 't', 'me', 'production',"
                " NULL, 'onnx', '1', 'd', '{}', '{\"auc\": 0.9}', 5)"
            ),
            {"digest": digest},
        )
        connection.execute(
            text(
                "INSERT INTO audit VALUES"
                " (3, 't', 'me', 'upload', 'model', 7, 'churn', '1', :digest, '{\"a\": 1}', 'r')"
            ),
            {"digest": digest},
        )

    async def look(opened: Database) -> None:
        async with opened.read() as connection:
            version = (await connection.execute(select(tables.models))).one()
            kept = (await connection.execute(select(tables.objects))).one()
            verdict = await audit.verify(connection)
        assert (version.id, version.characteristics, version.deleted_at) == (7, {"auc": 0.9}, None)
        assert kept.segments == [["objects/ab/" + "ab" * 32, 5]]
        assert (verdict.entries, verdict.problem) == (1, None)

    with_database(settings_of(database=path), look)
    with closing(sqlite3.connect(path)) as opened:
        assert json.loads(opened.execute("SELECT detail FROM audit").fetchone()[0]) == {"a": 1}
