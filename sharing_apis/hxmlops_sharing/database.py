"""Where the records are: SQLite (WAL) through SQLAlchemy. Two ways in: `read` and `write`."""

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from hxmlops_sharing.migrations import HEAD

BUSY_TIMEOUT_S = 10


class DatabaseError(Exception):
    """The database cannot be used: one line with what to do."""


class Database:
    """One SQLite file. Several servers may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S},
        )
        self._writing = asyncio.Lock()
        event.listen(self._engine.sync_engine, "connect", _prepare_connection)
        event.listen(self._engine.sync_engine, "begin", _begin)

    async def open(self) -> None:
        """Make the schema current. DatabaseError when that cannot be."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with _locked(self.path.with_name(self.path.name + ".lock")):
                await self._migrate()
        except OSError as error:
            raise DatabaseError(
                f"database {self.path}: {error.strerror}: name a file that this user may write to"
            ) from None
        except SQLAlchemyError as error:
            raise DatabaseError(
                f"database {self.path}: {getattr(error, 'orig', error)}: name an SQLite file or a new one"
            ) from None

    async def _migrate(self) -> None:
        async with self._engine.connect() as connection:
            revision = await connection.run_sync(_revision)
            if revision == HEAD:
                return
            if revision is not None and revision > HEAD:
                raise DatabaseError(
                    f"database {self.path} has schema {revision}, this server knows up to {HEAD}: start a newer server"
                )
        async with self.write() as connection:
            await connection.run_sync(_upgrade)
            await connection.commit()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the database."""
        async with self._engine.connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that excludes every other writer from its start; undone unless committed."""
        async with self._writing, self._engine.connect() as connection:
            yield await connection.execution_options(hxmlops_write=True)

    async def close(self) -> None:
        await self._engine.dispose()


def _prepare_connection(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what was answered survives a power cut
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("hxmlops_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported for a new or old schema only: it costs a tenth of a second
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "hxmlops_sharing:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """One process at a time; others wait."""
    with path.open("w") as file:
        await anyio.to_thread.run_sync(fcntl.flock, file, fcntl.LOCK_EX)
        yield
