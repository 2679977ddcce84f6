"""The database: its schema's history, its audit, its start."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from hxmlops_sharing import database
from hxmlops_sharing.database import Database, DatabaseError
from hxmlops_sharing.migrations import HEAD
from hxmlops_sharing.tables import audit, metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "records.sqlite"


async def open_and_close(path: Path) -> None:
    opened = Database(path)
    try:
        await opened.open()
    finally:
        await opened.close()


def test_the_migrations_make_the_tables_that_the_code_uses(path: Path) -> None:
    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async def compare() -> object:
        opened = Database(path)
        await opened.open()
        async with opened.read() as connection:
            found = await connection.run_sync(differences)
        await opened.close()
        return found

    assert asyncio.run(compare()) == []


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "hxmlops_sharing:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_servers_that_start_at_once_migrate_once(path: Path) -> None:
    async def both() -> None:
        await asyncio.gather(open_and_close(path), open_and_close(path))

    asyncio.run(both())


def test_a_current_database_is_opened_without_alembic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(open_and_close(path))
    monkeypatch.delattr(database, "_upgrade")
    asyncio.run(open_and_close(path))


def test_a_newer_database_is_refused(path: Path) -> None:
    asyncio.run(open_and_close(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match=r"has schema 9999, this server knows up to 0001: start a newer server$"):
        asyncio.run(open_and_close(path))


def test_what_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("this is no database, and long enough to tell " * 10)
    with pytest.raises(
        DatabaseError, match=rf"^database {path}: file is not a database: name an SQLite file or a new one$"
    ):
        asyncio.run(open_and_close(path))
    with pytest.raises(DatabaseError, match=r"^database .*: name a file that this user may write to$"):
        asyncio.run(open_and_close(path / "below a file"))


@pytest.mark.parametrize("change", [audit.update().values(client="someone else"), audit.delete()])
def test_the_audit_is_append_only(path: Path, change: object) -> None:
    asyncio.run(open_and_close(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO audit VALUES (1, 'now', 'me', 'upload', 'model', 1, 'a', '1', 's', '{}', 'r')")
        with pytest.raises(sqlite3.IntegrityError, match="the audit is append-only"):
            connection.execute(str(change), {"client": "someone else"})
