# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""A release's lock on this controller: held by whoever works on it, helm included, so that an orphan is seen."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import alive, started_at
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import read_json

POLL_S = 0.2


class Locked(UserError):
    """Another live run works on the release; the text says which and what to do."""


@contextlib.contextmanager
def release_lock(
    server: str, namespace: str, name: str, *, timeout_s: float, say: Callable[[str], None]
) -> Iterator[tuple[int, bool]]:
    """Hold a release's lock; gives its descriptor and whether an orphan held it before.

    A dead owner's orphan (a worker or helm that outlived its ansible-playbook) is waited for. Raises Locked for a live
    owner, or an orphan that does not end in time. The lock goes with the last process that has the descriptor.
    """
    path = _path(server, namespace, name)
    descriptor = _open(path)
    try:
        orphan = _take(descriptor, path, time.monotonic() + timeout_s, say)
        me = os.getppid()
        record = json.dumps({"pid": me, "started_at": started_at(me), "release": name}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, record, 0)
        yield descriptor, orphan
    finally:
        # no LOCK_UN: a helm that outlives us keeps the lock by its copy of the descriptor
        os.close(descriptor)


def orphaned(server: str, namespace: str, name: str) -> bool:
    """True while the work of a killed run on a release goes on. Raises Locked while a live run is at work."""
    path = _path(server, namespace, name)
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        _refuse_live(read_json(path))
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _path(server: str, namespace: str, name: str) -> Path:
    return _folder() / (hashlib.sha256(f"{server} {namespace} {name}".encode()).hexdigest()[:32] + ".lock")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _refuse_live(owner: dict[str, Any] | None) -> None:
    if owner and alive(owner) and owner["pid"] != os.getppid():
        raise Locked(
            f"another run (process {owner['pid']}) works on it: wait for it to end, or stop it with: kill "
            f"{owner['pid']}"
        )


def _take(descriptor: int, path: Path, deadline: float, say: Callable[[str], None]) -> bool:
    orphan = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = read_json(path)
            _refuse_live(owner)
            if time.monotonic() > deadline:
                raise Locked(f"the work of a killed run has not ended: see who holds it with: fuser {path}") from None
            if owner and not orphan and not alive(owner):
                say(f"waits for the work of a killed run (process {owner['pid']})")
                orphan = True
            time.sleep(POLL_S)
        else:
            return orphan


def _folder() -> Path:
    """A folder for locks that is this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"hxmlops-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Locked(f"{folder} is not this user's own folder: remove it, or set TMPDIR")
    return folder
