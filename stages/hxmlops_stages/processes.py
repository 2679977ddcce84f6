"""The stage's own process: the lock it holds while it works, and how it stops with all that it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOPPED = 143  # 128 + SIGTERM
_GRACE_S = 2.0


class AlreadyRunning(Exception):
    """Another process works in this stage's folder."""


def start_time(pid: int) -> int:
    """Start of a process, in clock ticks since boot: with its id it names it for good. ProcessLookupError."""
    return int(_stat(pid)[19])


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold `lock` (flock) while the block runs; it reads `PID START_TIME`. AlreadyRunning if it is held."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().split()
            raise AlreadyRunning(f"already running by pid {owner[0] if owner else 'unknown'}") from None
        file.truncate(0)
        file.write(f"{os.getpid()} {start_time(os.getpid())}\n")
        file.flush()
        yield


@contextmanager
def stoppable() -> Iterator[None]:
    """On SIGTERM or SIGINT end every descendant, then this process with 143, also amid a long native call.

    A handler in Python would wait until such a call returns; a thread reads the signal's number from a pipe.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before_fd = signal.set_wakeup_fd(writing)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    threading.Thread(target=_stop_when_told, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread, which closes the other end


def _stop_when_told(reading: int) -> None:
    while told := os.read(reading, 1):
        if told[0] in (signal.SIGTERM, signal.SIGINT):
            stop_descendants()
            os._exit(STOPPED)
    os.close(reading)


def stop_descendants(grace_s: float = _GRACE_S) -> None:
    """Ask all descendants of this process to end; after `grace_s` seconds kill them, after twice that give up."""
    asked = time.monotonic()
    while alive := _descendants(os.getpid()):
        waited = time.monotonic() - asked
        if waited > 2 * grace_s:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if waited > grace_s else signal.SIGTERM)
        time.sleep(0.02)


def _descendants(root: int) -> list[int]:
    """Living (not zombie) descendants, and members of the root's session that a parent has left behind."""
    parents: dict[int, int] = {}
    session: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = _stat(int(entry.name))
        except ProcessLookupError:
            continue
        if stat[0] != "Z":
            parents[int(entry.name)] = int(stat[1])
            if int(stat[3]) == root:
                session.add(int(entry.name))
    found, todo = session - {root}, [root, *session]
    while todo:
        parent = todo.pop()
        children = {pid for pid, above in parents.items() if above == parent} - found - {root}
        found |= children
        todo += children
    return sorted(found)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; see proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    return text.rpartition(")")[2].split()
