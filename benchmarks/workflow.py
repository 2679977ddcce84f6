"""The demo's workflow, timed: set up, first run, unchanged runs, and what a stage costs beyond its own work.

A stage's overhead is the time from the preparation of its folder to its recorded result, less the stage's own compute
and imports (`work_s` in its result): starting Python, the runner's imports, lock, digests, energy accounting. Nothing
here fails on a time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from tests.embedded.lab import DOMAINS, Lab, laboratory  # noqa: E402 - the project is no installed package

UNCHANGED_RUNS = 5


def timed(lab: Lab) -> float:
    start = time.monotonic()
    lab.play().succeeded()
    return time.monotonic() - start


def no_op(python: str) -> float:
    """Seconds of a Python that does nothing: the floor under every program."""
    start = time.monotonic()
    subprocess.run([python, "-c", ""], check=True)
    return time.monotonic() - start


def overheads(lab: Lab) -> dict[str, float]:
    """Seconds between a stage's preparation (key.json) and its result, beyond the stage's own work."""
    found = {}
    for domain in DOMAINS:
        for folder in (lab.state(domain) / "stages").iterdir():
            name = folder.name.rpartition("-")[0]
            result = lab.stages(domain, name)[-1]
            begun = (folder / "key.json").stat().st_mtime
            ended = (folder / "result.json").stat().st_mtime
            found[f"{domain} {name}"] = ended - begun - float(result["work_s"])
    return found


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = Path(tempfile.mkdtemp())
    try:
        with laboratory(folder) as lab:
            first = timed(lab)
            extra = overheads(lab)
            unchanged = [timed(lab) for _ in range(UNCHANGED_RUNS)]
    finally:
        shutil.rmtree(folder)
    floor = statistics.median(no_op(sys.executable) for _ in range(10))
    print(f"{'what':44} {'s':>8}   target")
    print(f"{'first run, keys and services included':44} {first:8.2f}   < 60")
    print(f"{f'unchanged run, median of {UNCHANGED_RUNS}':44} {statistics.median(unchanged):8.2f}   <= 6")
    print(f"{'   best and worst':44} {min(unchanged):8.2f} {max(unchanged):.2f}")
    print(f"{'overhead of a stage, median':44} {statistics.median(extra.values()):8.3f}   <= 0.7")
    worst = max(extra, key=lambda name: extra[name])
    print(f"{f'   worst ({worst})':44} {extra[worst]:8.3f}")
    print(f"{'   a Python that does nothing':44} {floor:8.3f}")


if __name__ == "__main__":
    main()
