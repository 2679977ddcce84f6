"""Clusters for use by hand: `python -m tests.cluster up|down [FOLDER]`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.cluster.clusters import DOMAINS, found, remove, start_all, tools

USAGE = "usage: python -m tests.cluster up|down [FOLDER]"


def main(words: list[str]) -> str | None:
    """What went wrong, if anything."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    match words:
        case ["up" | "down", *rest] if len(rest) < 2:
            folder = Path(rest[0] if rest else cache / "hxmlops" / "clusters").resolve()
        case _:
            return USAGE
    if words[0] == "down":
        if not found(folder):
            return f"{folder}: no clusters here"
        remove(folder)
        return None
    if folder.exists() and any(folder.iterdir()):
        return f"{folder}: not empty; if clusters are there, `down` ends them"
    tools()
    start = time.monotonic()
    start_all(DOMAINS, folder)
    print(f"# {len(DOMAINS)} control planes in {time.monotonic() - start:.1f} s; tests use them by HXMLOPS_CLUSTERS")
    print(f"export KUBECONFIG={folder / 'kubeconfig'} HXMLOPS_CLUSTERS={folder}")
    print(f"export PATH={tools()['helm4']}:{tools()['kubernetes']}:$PATH")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
