"""Servers on loopback for a measurement: ours, MLflow, nginx. Each ends with its block; folders are the caller's."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common.wire import Connection
from hxmlops_sharing.tokens import create_token

PROJECT = Path(__file__).resolve().parents[2]
MLFLOW = PROJECT / ".venv-mlflow" / "bin" / "mlflow"
MLFLOW_WORKERS = 4  # as it comes
START_S = 120


@dataclass(frozen=True)
class Server:
    """A running server: its first process, its port, header fields that its clients send."""

    process: subprocess.Popen[bytes]
    port: int
    headers: Mapping[str, str]
    ready_s: float = 0.0
    """Seconds from the command until it said that it was ready."""

    def connect(self) -> Connection:
        return Connection(self.port, self.headers)

    def memory(self) -> float:
        """MiB of memory that the process has."""
        return self._status("VmRSS") / 1024

    def peak(self) -> float:
        """MiB of memory that it had at most since `forget_peak`."""
        return self._status("VmHWM") / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 (no need for paths)

    def threads(self) -> int:
        return self._status("Threads")

    def _status(self, name: str) -> int:
        """A number that the kernel says of the process; of memory, KiB."""
        found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def ours(
    folder: Path,
    *,
    receipts: bool = False,
    settings: Mapping[str, Any] | None = None,
    program: Sequence[str | Path] = ("-m", "hxmlops_sharing", "serve"),
) -> Iterator[Server]:
    """The server as users start it, with tokens and audit, over a folder; its log is `folder/log`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens, held = folder / "tokens.json", folder / "token"
    create_token(tokens, held, client="benchmark", scopes=["read", "write", "admin"], artifacts=["*"], days=1)
    values: dict[str, Any] = {
        "kind": "model",
        "database": folder / "records.sqlite",
        "store": folder / "store",
        "tokens": tokens,
    }
    values |= {"port": 0, "collect_every_minutes": 0} | dict(settings or {})
    if receipts:
        values["signing_key"] = folder / "signing.pem"
        run(values, "key", "create", "--out", folder / "signing.pem")
    command = [sys.executable, *program]
    with (folder / "log").open("ab") as log:
        begins, started = log.tell(), time.perf_counter()
        process = subprocess.Popen(command, env=environment(values), stderr=log)
    try:
        port = _said_port(folder / "log", begins, process)
        server = Server(process, port, {"Authorization": f"Bearer {held.read_text().strip()}"})
        _until_answers(server, "/ready")
        yield replace(server, ready_s=time.perf_counter() - started)
    finally:
        end(process)


def run(settings: Mapping[str, Any], *words: str | Path) -> str:
    """What a command of the server's program prints. RuntimeError when it fails."""
    command = [sys.executable, "-m", "hxmlops_sharing", *map(str, words)]
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr}")
    return done.stdout


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a server with these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HXMLOPS_SHARING_")}
    return kept | {f"HXMLOPS_SHARING_{name.upper()}": str(value) for name, value in settings.items()}


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[Server]:
    """MLflow's tracking server with SQLite that proxies artifacts to a folder, its workers as it comes."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--serve-artifacts",
        "--artifacts-destination", str(folder / "artifacts"), "--backend-store-uri", f"sqlite:///{folder}/db.sqlite",
    ]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | quiet, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        server = Server(process, port, {})
        _until_answers(server, "/health")
        while (folder / "log").read_text().count("startup complete") < MLFLOW_WORKERS:
            time.sleep(0.1)
        yield server
    finally:
        end(process, group=True)


@contextlib.contextmanager
def nginx(program: str, folder: Path, served: Path) -> Iterator[Server]:
    """nginx that sends the files of a folder by sendfile, without a log."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    temporary = " ".join(f"{what}_temp_path tmp;" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log;
        events {{}}
        http {{ sendfile on; tcp_nopush on; access_log off; {temporary}
          server {{ listen 127.0.0.1:{port}; root {served}; }} }}"""
    )
    command = [program, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = Server(process, port, {})
        _until_answers(server, "/", status=None)
        yield server
    finally:
        end(process)


@contextlib.contextmanager
def barest(folder: Path, size: int) -> Iterator[Server]:
    """The barest receiver of `size` bytes at a time, into a file of the folder."""
    command = [sys.executable, str(Path(__file__).with_name("barest.py")), str(folder / "received"), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            said = process.stdout.readline() if process.stdout else b""
            yield Server(process, int(said), {})
        finally:
            end(process)


def end(process: subprocess.Popen[bytes], *, group: bool = False) -> None:
    """Tell a server to stop, with `group` all processes of its session, and wait until it has."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, how)
            elif process.poll() is None:
                process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
            if not group or how == signal.SIGKILL:
                return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _said_port(log: Path, begins: int, process: subprocess.Popen[bytes]) -> int:
    """The port that the server says it serves on."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for line in log.read_bytes()[begins:].splitlines():
            with contextlib.suppress(ValueError, KeyError):
                event = json.loads(line)
                if event["event"] == "serving":
                    return int(event["port"])
        if process.poll() is not None:
            break
        time.sleep(0.002)
    raise RuntimeError(f"the server did not start: {log.read_text()[-1000:]}")


def _until_answers(server: Server, path: str, status: int | None = 200) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.process.args!r} ended with {server.process.returncode}")
        with contextlib.suppress(OSError, ValueError), server.connect() as connection:
            if status in (None, connection.call("GET", path).status):
                return
        time.sleep(0.002)
    raise RuntimeError(f"{server.process.args!r} does not answer")
