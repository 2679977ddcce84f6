"""The server of the sharing APIs, unchanged, with a heart beside it: how late is the event loop?

As a program: `heartbeat.py FILE` serves as `python -m hxmlops_sharing serve` does, and appends to FILE a line of JSON a
second with the longest stall in it: the time between two beats less what the loop had to wait for a core, which the
kernel counts, and how much of it the loop worked. The rest it waited for the system, or for a thread that held the
interpreter and may itself have waited for a core: on a busy machine that is long. Where a stall lasts, a thread adds
what the loop was at. Garbage waits seconds here, not an hour.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

BEAT_S = 0.005
LATE_S = 0.08
SETTLE_S = 30.0


class Heart:
    """Beats in the event loop, watched by a thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._loop_thread = threading.get_ident()
        self._waited = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._beat_at = time.perf_counter()

    async def beat(self) -> None:
        worst, said_at, waited, worked = (0.0, 0.0), time.perf_counter(), self._waited_s(), time.thread_time()
        while True:
            self._beat_at = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            now, waited_now = time.perf_counter(), self._waited_s()
            worked_now = time.thread_time()
            worst = max(worst, (now - self._beat_at - BEAT_S - (waited_now - waited), worked_now - worked))
            waited, worked = waited_now, worked_now
            if now - said_at >= 1:
                self._say(stall_ms=round(worst[0] * 1000, 1), work_ms=round(worst[1] * 1000, 1))
                worst, said_at = (0.0, 0.0), now

    def watch(self) -> None:
        while True:
            time.sleep(LATE_S / 4)
            beat_at = self._beat_at
            if time.perf_counter() - beat_at > LATE_S + BEAT_S:
                frame = sys._current_frames().get(self._loop_thread)
                lines = traceback.format_stack(frame)[-8:] if frame else []
                self._say(at=[line.strip().replace("\n", " ") for line in lines])
                while self._beat_at == beat_at:
                    time.sleep(LATE_S / 4)

    def _waited_s(self) -> float:
        """Seconds that the loop's thread was ready to run and no core was free."""
        return int(os.pread(self._waited, 100, 0).split()[1]) / 1e9

    def _say(self, **what: object) -> None:
        self._file.write(json.dumps({"time": time.monotonic(), **what}) + "\n")


def main(path: Path) -> int:
    run_alone = uvloop.run

    async def with_heart(work: Coroutine[Any, Any, Any]) -> None:
        heart = Heart(path)
        threading.Thread(target=heart.watch, daemon=True).start()
        beating = asyncio.get_running_loop().create_task(heart.beat())
        try:
            await work
        finally:
            beating.cancel()

    uvloop.run = lambda work: run_alone(with_heart(work))  # type: ignore[assignment,misc]

    from hxmlops_sharing import collect, serve

    collect.collect.__kwdefaults__ = {
        **(collect.collect.__kwdefaults__ or {}),
        "settle_s": SETTLE_S,
        "orphan_s": SETTLE_S,
    }
    return serve.serve()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
