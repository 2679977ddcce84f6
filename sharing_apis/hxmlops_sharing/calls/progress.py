"""A progress bar for people: on a terminal, and for what takes longer than a second."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hxmlops_sharing.calls.downloads import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Live
    from rich.progress import TaskID

AFTER_S = 1.0


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """What to give as `progress`; draws on standard error when that is a terminal, and leaves nothing there."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(title)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    def __init__(self, title: str) -> None:
        self._title = title
        self._show_at = time.monotonic() + AFTER_S
        self._shown: tuple[Live, TaskID] | None = None  # rich takes time to import

    def __call__(self, done: int, total: int | None) -> None:
        if self._shown is None and time.monotonic() >= self._show_at:
            self._shown = self._show()
        if self._shown is not None:
            live, task = self._shown
            live.update(task, completed=done, total=total)

    def _show(self) -> "tuple[Live, TaskID]":
        from rich import progress
        from rich.console import Console
        from rich.markup import escape

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        live = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        live.start()
        return live, live.add_task(escape(self._title), total=None)

    def close(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()
