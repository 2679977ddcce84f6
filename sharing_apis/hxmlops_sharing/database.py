"""Where the records are: SQLite (WAL) or PostgreSQL through SQLAlchemy. Two ways in: `read` and `write`."""

import asyncio
import contextlib
import fcntl
import functools
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiosqlite
import anyio.to_thread
import asyncpg
from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hxmlops_sharing.migrations import HEAD
from hxmlops_sharing.settings import Settings

BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 60
CONNECTIONS = 10
SQLITE_CACHE = "PRAGMA cache_size = -256"
"""KiB of pages that each connection keeps: with 2,000, SQLite's own, it is as fast, and many connections hold much."""
WRITER_LOCK = 0x68786D6C  # of PostgreSQL's advisory locks, within one database


class DatabaseError(Exception):
    """The database cannot be used: one line with what to do."""


class DatabaseUnavailable(Exception):
    """The database did not answer, or not in time: another try may succeed."""


class Database:
    """One SQLite file or one PostgreSQL database. Several servers may share it."""

    def __init__(self, settings: Settings) -> None:
        self.dialect = "postgresql" if settings.on_postgresql else "sqlite"
        self.path = None if settings.on_postgresql else Path(settings.database)
        self.name = _name(settings)
        self._writing = asyncio.Lock()
        self._settings = settings
        self._sqlite: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._pool: Any = None
        self._engine = _postgresql(settings) if self.path is None else _sqlite(self.path)

    async def open(self) -> None:
        """Make the schema current. DatabaseError when that cannot be."""
        try:
            async with self._migrating():
                await self._migrate()
        except OSError as error:
            raise DatabaseError(f"database {self.name}: {_reason(error)}: {self._advice()}") from None
        except (SQLAlchemyError, DatabaseUnavailable) as error:
            raise DatabaseError(
                f"database {self.name}: {getattr(error, 'orig', None) or error}: {self._advice()}"
            ) from None

    async def check(self) -> None:
        """DatabaseUnavailable when it does not answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def read(self, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection to read with; with `snapshot`, all it reads is of one moment. DatabaseUnavailable."""
        async with self._connected() as connection:
            if snapshot and self.dialect == "postgresql":
                connection = await connection.execution_options(isolation_level="REPEATABLE READ")
            elif snapshot:
                connection = await connection.execution_options(hxmlops_begin="BEGIN")
            yield connection

    async def fetch(self, statement: str, *values: object) -> Mapping[str, Any] | None:
        """The first row of a statement in the database's own words, its parameters as `?`, without SQLAlchemy.

        For what is asked thousands of times a second. JSON comes as text. DatabaseUnavailable.
        """
        if self.path is not None:
            if self._sqlite is None:
                self._sqlite = _reader(self.path)
            row = self._sqlite.execute(
                statement, values
            ).fetchone()  # some microseconds: less than another thread costs
            return dict(row) if row else None
        return await self._fetch_postgresql(statement, values)

    async def fetch_slowly(self, statement: str, *values: object) -> Mapping[str, Any] | None:
        """The same of a statement that may have much to look through: nobody waits for it but the caller."""
        if self.path is None:
            return await self._fetch_postgresql(statement, values)
        path = self.path

        def look() -> Mapping[str, Any] | None:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _reader(path)
            row = connection.execute(statement, values).fetchone()
            self._idle.append(connection)
            return dict(row) if row else None

        return await anyio.to_thread.run_sync(look)

    async def _fetch_postgresql(self, statement: str, values: tuple[object, ...]) -> Mapping[str, Any] | None:
        try:
            if self._pool is None:
                self._pool = await _pool(self._settings)
            found = await self._pool.fetchrow(_numbered(statement), *values)
        except (OSError, TimeoutError, *_AWAY) as error:
            raise DatabaseUnavailable(type(error).__name__) from error
        return dict(found) if found else None

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that excludes every other writer from its start; undone unless committed."""
        async with self._writing, self._connected() as connection:
            if self.dialect == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})
                yield connection
            else:
                connection = await connection.execution_options(hxmlops_begin="BEGIN IMMEDIATE")
                await connection.begin()
                yield connection

    async def close(self) -> None:
        for reader in (self._sqlite, *self._idle):
            if reader is not None:
                reader.close()
        if self._pool is not None:
            self._pool.terminate()
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self._engine.connect()
        except (OSError, PoolTimeoutError) as error:
            raise DatabaseUnavailable(_reason(error)) from error
        except Exception as error:
            if self.dialect == "sqlite":
                raise
            raise DatabaseUnavailable(type(error).__name__) from error
        try:
            yield connection
        except DBAPIError as error:
            if _is_away(error):
                raise DatabaseUnavailable(type(error.orig).__name__) from error
            raise
        finally:
            try:
                await connection.close()
            except DBAPIError as error:
                if not _is_away(error):  # what was read or committed stands
                    raise

    @contextlib.asynccontextmanager
    async def _migrating(self) -> AsyncIterator[None]:
        """One process at a time; others wait. On PostgreSQL the writers' lock does that."""
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".lock").open("w") as file:
            await anyio.to_thread.run_sync(fcntl.flock, file, fcntl.LOCK_EX)
            yield

    async def _migrate(self) -> None:
        async with self.read() as connection:
            if await connection.run_sync(_revision) == HEAD:
                return
        async with self.write() as connection:
            revision = await connection.run_sync(_revision)  # another server may have been first
            if revision is not None and revision > HEAD:
                raise DatabaseError(
                    f"database {self.name} has schema {revision}, this server knows up to {HEAD}: start a newer server"
                )
            if revision != HEAD:
                await connection.run_sync(_upgrade)
                await connection.commit()

    def _advice(self) -> str:
        if self.dialect == "sqlite":
            return "name an SQLite file that this user may write to, or a new one"
        return "check the name, the user, its password, and that PostgreSQL runs there"


@functools.lru_cache(64)
def _numbered(statement: str) -> str:
    """With PostgreSQL's parameters, `$1` and so on, instead of `?`."""
    first, *rest = statement.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, start=1))


def _reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.execute(SQLITE_CACHE)
    connection.row_factory = sqlite3.Row
    return connection


class _SqliteConnection(aiosqlite.Connection):
    """Leaves to its thread what may take time; a trip there and back costs more than to make a cursor."""

    def __init__(self, path: Path) -> None:
        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True  # as SQLAlchemy has it

    def cursor(self) -> "_SqliteCursor":  # type: ignore[override]
        return _SqliteCursor(self, self._conn.cursor())


class _SqliteCursor(aiosqlite.Cursor):
    async def close(self) -> None:
        try:
            self._cursor.close()
        except sqlite3.ProgrammingError:  # the thread is still at it, though nobody waits for that any more
            await super().close()


def _sqlite(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        connect_args={"async_creator_fn": lambda *_, **__: _SqliteConnection(path)},
    )
    event.listen(engine.sync_engine, "connect", _prepare_connection)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _postgresql(settings: Settings) -> AsyncEngine:
    url = urlsplit(settings.database)
    return create_async_engine(
        URL.create(
            "postgresql+asyncpg",
            username=settings.database_username or None,
            password=settings.database_password.get_secret_value() or None,
            host=url.hostname,
            port=url.port or 5432,
            database=url.path.lstrip("/"),
        ),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S},
    )


async def _pool(settings: Settings) -> Any:
    url = urlsplit(settings.database)
    return await asyncpg.create_pool(
        user=settings.database_username or None,
        password=settings.database_password.get_secret_value() or None,
        host=url.hostname,
        port=url.port or 5432,
        database=url.path.lstrip("/"),
        min_size=0,
        max_size=CONNECTIONS,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
    )


def _name(settings: Settings) -> str:
    return urlsplit(settings.database).path.lstrip("/") if settings.on_postgresql else settings.database


def _prepare_connection(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute(SQLITE_CACHE)
    cursor.execute("PRAGMA synchronous = FULL")  # what was answered survives a power cut
    cursor.close()


def _begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get("hxmlops_begin")
    if begin:
        connection.exec_driver_sql(begin)


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


_AWAY = (
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
)


def _is_away(error: DBAPIError) -> bool:
    """Lost connections, and PostgreSQL on its way up or down (class 57P of its error codes)."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    locked = "database is locked" in str(error.orig)
    return error.connection_invalidated or state.startswith(("57P", "08")) or locked


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else "no answer in time" if isinstance(error, TimeoutError) else str(error)
