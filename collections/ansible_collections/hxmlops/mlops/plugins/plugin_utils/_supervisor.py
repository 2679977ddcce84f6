# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Long-lived programs of a domain under supervisord: one daemon a domain, one file a program.

supervisord restarts what crashes and rotates the logs; it is spoken to by XML-RPC over a socket in the
domain's folder (supervisord.org, "XML-RPC API Documentation").
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import started_at
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import write_private
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import environment

LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes; supervisord binds a longer name first
START_TIMEOUT_S = 20
DAEMON = """[supervisord]
logfile=%(folder)s/supervisord.log
logfile_maxbytes=1MB
logfile_backups=2
pidfile=%(folder)s/supervisord.pid
childlogdir=%(folder)s
umask=077
silent=true

[unix_http_server]
file=%(socket)s
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files=%(folder)s/programs/*.conf
"""
PROGRAM = """[program:%(name)s]
command=%(command)s
environment=%(environment)s
directory=%(folder)s
autorestart=true
startsecs=1
startretries=10
stopwaitsecs=10
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(folder)s/%(name)s.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=3
"""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Supervisor:
    """The supervisord of one domain."""

    def __init__(self, state: str | Path, python: str) -> None:
        self.folder = Path(state) / "services"
        self.python = python
        path = str(self.folder / "supervisor.sock")
        if len(path) > LONGEST_SOCKET_PATH:
            short = hashlib.sha256(path.encode()).hexdigest()[:16]
            path = f"{tempfile.gettempdir()}/hxmlops-{os.getuid()}-{short}/supervisor.sock"
        self.socket = path

    def rpc(self, method: str, *arguments: str) -> Any:
        """Call a method of supervisord's API. Raises OSError when it does not run, xmlrpc.client.Fault on a no."""
        connection = _UnixConnection(self.socket)
        try:
            plain = tuple(str.__str__(word) for word in arguments)  # Ansible's own kinds of text are not marshalled
            body = xmlrpc.client.dumps(plain, f"supervisor.{method}")
            connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
            answer = connection.getresponse().read()
        finally:
            connection.close()
        return xmlrpc.client.loads(answer)[0][0]

    def running(self) -> bool:
        """True when supervisord answers."""
        try:
            self.rpc("getState")
        except OSError:
            return False
        return True

    def program(self, name: str) -> dict[str, Any] | None:
        """supervisord's record of a program, None for one that it does not know."""
        try:
            return dict(self.rpc("getProcessInfo", name))
        except (OSError, xmlrpc.client.Fault):
            return None

    def text(self, name: str, command: list[str], variables: dict[str, str]) -> str:
        """A program's configuration file. `%` is supervisord's own sign and is doubled."""
        quoted = [f'"{word}"' if " " in word else word for word in command]
        pairs = ",".join(f'{key}="{value}"' for key, value in sorted(variables.items()))
        values = {"command": " ".join(quoted), "environment": pairs}
        return PROGRAM % {
            "name": name,
            "folder": self.folder,
            **{key: value.replace("%", "%%") for key, value in values.items()},
        }

    def configured(self, name: str) -> str | None:
        """The program's configuration file as it stands."""
        try:
            return self._file(name).read_text(encoding="utf-8")
        except OSError:
            return None

    def crashed(self, name: str) -> bool:
        """True when the program ended within a second of its start, or was given up."""
        program = self.program(name)
        return bool(program and program["statename"] in ("BACKOFF", "FATAL"))

    def apply(self, name: str, text: str) -> None:
        """Make supervisord run the program by this configuration, anew if it ran by another."""
        write_private(self._file(name), text)
        if not self.running():
            self._start()
            return
        self._forget(name)
        self.rpc("reloadConfig")
        self.rpc("addProcessGroup", name)

    def remove(self, name: str) -> None:
        """Stop a program and forget it."""
        self._file(name).unlink(missing_ok=True)
        if self.running():
            self._forget(name)
            self.rpc("reloadConfig")

    def shutdown(self) -> None:
        """Stop every program and supervisord; return when they are gone."""
        pid = int((self.folder / "supervisord.pid").read_text())
        start = started_at(pid)
        self.rpc("shutdown")
        deadline = time.monotonic() + START_TIMEOUT_S
        while start is not None and started_at(pid) == start and time.monotonic() < deadline:
            time.sleep(0.05)
        if start is not None and started_at(pid) == start:
            os.kill(pid, signal.SIGKILL)

    def last_line(self, name: str) -> str:
        """The last line that a program logged."""
        with contextlib.suppress(OSError):
            lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            if lines:
                return lines[-1].strip()
        return "it logged nothing"

    def _file(self, name: str) -> Path:
        return self.folder / "programs" / f"{name}.conf"

    def _forget(self, name: str) -> None:
        for method in ("stopProcessGroup", "removeProcessGroup"):
            with contextlib.suppress(xmlrpc.client.Fault):
                self.rpc(method, name)

    def _start(self) -> None:
        Path(self.socket).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self.folder / "supervisord.conf"
        write_private(configuration, DAEMON % {"folder": self.folder, "socket": self.socket})
        errors = self.folder / "supervisord.err"
        with errors.open("w") as stream:
            subprocess.run(
                [self.python, "-m", "supervisor.supervisord", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=environment(),
                cwd=self.folder,
                check=False,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.running():
            if time.monotonic() > deadline:
                reason = errors.read_text(encoding="utf-8").strip().splitlines()[-1:] or ["no message"]
                raise OSError(f"supervisord does not start in {self.folder}: {reason[0]}")
            time.sleep(0.02)
