"""Runs a user's program: under limits, with nothing of ours in its environment, and to its very end.

This file is also what starts that program (`python confined.py LIMITS COMMAND...`): limits are set in a
process that has no threads yet, and the program then takes its place.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# prctl(2)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_PR_SET_NO_NEW_PRIVS = 38

_OPEN_FILES = 1024
_LOG_LIMIT = 16 << 20  # bytes of output that are kept
_LINE_LIMIT = 500  # characters of a line that are passed on


@dataclass(frozen=True)
class Ended:
    """How a program ended. `exit_code` is negative for a signal; `last_error` is its last line on stderr."""

    exit_code: int
    timed_out: bool
    last_error: str


def run(
    command: list[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    time_limit_s: float,
    memory_limit_gb: float,
    log: Path,
    on_line: Callable[[str], None],
) -> Ended:
    """Run `command` in `folder`; write all it prints to `log` and give each line of stdout to `on_line`.

    When this returns, neither the program nor anything it started lives. The memory limit is on the data of
    each of its processes (RLIMIT_DATA), not on address space, of which numeric libraries reserve far more
    than they use.
    """
    limits = json.dumps({"data_bytes": int(memory_limit_gb * 1e9), "parent": os.getpid()})
    before = _children(_parents())
    with log.open("wb") as stream, _adopting_orphans():
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, limits, *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        output, errors = _Lines(process.stdout, stream, on_line), _Lines(process.stderr, stream, None)
        try:
            timed_out = _follow(process, (output, errors), time.monotonic() + time_limit_s)
        finally:
            _kill_all(before, process)
            for lines in (output, errors):
                lines.close()
    return Ended(process.returncode, timed_out, errors.last)


class _Lines:
    """What a program prints: copied to the log (up to its limit), and line by line to a listener."""

    def __init__(self, source: IO[bytes] | None, log: IO[bytes], on_line: Callable[[str], None] | None) -> None:
        assert source  # noqa: S101  (a pipe was asked for)
        self.last = ""
        self._source, self._log, self._on_line, self._rest = source, log, on_line, b""
        os.set_blocking(source.fileno(), False)

    def fileno(self) -> int:
        return self._source.fileno()

    def pump(self) -> bool:
        """Take what is there; False when there was nothing, which at a readable pipe means its end."""
        try:
            data = os.read(self.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        self._log.write(data[: max(0, _LOG_LIMIT - self._log.tell())])
        self._log.flush()
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LINE_LIMIT]
        for line in lines:
            self._take(line)
        return bool(data)

    def close(self) -> None:
        """Take the rest, once nobody is left to write more."""
        while self.pump():
            pass
        self._take(self._rest)
        self._source.close()

    def _take(self, line: bytes) -> None:
        text = "".join(c for c in line[:_LINE_LIMIT].decode(errors="replace").strip() if c.isprintable())
        if text:
            self.last = text
            if self._on_line:
                self._on_line(text)


def _follow(process: subprocess.Popen[bytes], outputs: Iterable[_Lines], deadline: float) -> bool:
    """Pump outputs until the program itself ends. True when the deadline came first."""
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for lines in outputs:
                selector.register(lines, selectors.EVENT_READ, lines)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.data is None:
                        return False
                    if not key.data.pump():
                        selector.unregister(key.fileobj)
    finally:
        os.close(ended)
    return True


def _kill_all(before: set[int], process: subprocess.Popen[bytes]) -> None:
    """Kill and reap all descendants that were not there `before`, also those that left session or parent."""
    while True:
        parents = _parents()
        found = children = _children(parents) - before
        if not found:
            process.wait()
            return
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found = found | more
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            if pid == process.pid:
                process.wait()
            else:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _parents() -> dict[int, int]:
    """Parent of every process, zombies included, from /proc (proc(5))."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def _children(parents: dict[int, int]) -> set[int]:
    return {pid for pid, parent in parents.items() if parent == os.getpid()}


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Processes that their parents leave behind become our children, not init's: so they can be found."""
    before = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(before.value))


def _prctl(option: int, value: Any) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _start(limits: dict[str, int], command: list[str]) -> None:
    """Limit this process and become `command`."""
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != limits["parent"]:  # it died before it could be watched
        sys.exit(1)
    for kind, limit in (
        (resource.RLIMIT_DATA, limits["data_bytes"]),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        highest = resource.getrlimit(kind)[1]
        limit = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(kind, (limit, limit))
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    _start(json.loads(sys.argv[1]), sys.argv[2:])
