"""The release `web` of the test chart, which fails or takes its time as its values say, and how to watch it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.clusters import HERE, Cluster

CHART = HERE / "charts" / "web"
BAD_HOOK = {"hxmlops.test/fault": "crash"}
GONE: dict[str, Any] = {"name": "web", "state": "absent"}


def web(name: str = "web", *, needs: list[str] | None = None, **values: Any) -> dict[str, Any]:
    """A release of the test chart, as helm_release takes it."""
    return {"name": name, "chart": str(CHART), "values": values, "needs": needs or []}


def slow(seconds: int, **values: Any) -> dict[str, Any]:
    """A release before which helm waits for a hook."""
    return web(hook={"hxmlops.test/delay": f"{seconds}s"}, **values)


def until[T](look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return found


def helms(namespace: str) -> dict[int, list[str]]:
    """Command lines of the helms that work in a namespace, by process."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("/helm") and namespace in words:
            found[int(file.parent.name)] = words
    return found


def helm_at(cluster: Cluster, namespace: str, revision: int, status: str) -> int:
    """The process of the helm that brought a revision of `web` to a state (pending-upgrade); waits for it."""
    record = f"secret/sh.helm.release.v1.web.v{revision}"
    asked = ("get", record, "-n", namespace, "-o", "jsonpath={.metadata.labels.status}", "--ignore-not-found")
    until(lambda: cluster.kubectl(*asked) == status or None, f"revision {revision} {status}")
    return until(lambda: next(iter(helms(namespace)), None), "helm at work")
