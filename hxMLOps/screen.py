# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What people see: progress that moves on a terminal and is plain lines elsewhere, and tables of results.

Results go to standard output; progress and what went wrong to standard error.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

WIDE = 100_000


def error(text: str) -> None:
    """Say what went wrong, in one line."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("hxMLOps: ", "bold red"), text))


def warning(text: str) -> None:
    """Say what may be wrong, in one line."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("warning: ", "yellow"), text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], states: Sequence[str] = ()) -> None:
    """Print a table, without the columns that are empty throughout; `states` colour the rows: good, bad or ''.

    Nothing is cut off or wrapped: a narrow terminal breaks long lines by itself.
    """
    cells = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False)
    shown = [number for number in range(len(columns)) if any(row[number] for row in cells)]
    for number in shown:
        made.add_column(columns[number], justify="right" if columns[number] in ("revision", "seconds") else "left")
    for row in cells:
        made.add_row(*(Text(row[number]) for number in shown))
    text = io.StringIO()
    Console(file=text, width=WIDE, no_color=True, highlight=False).print(made)
    console = Console(highlight=False, soft_wrap=True)
    styles = ["bold", *({"bad": "red", "good": "green"}.get(state, "") for state in states)]
    for line, style in zip_longest(text.getvalue().splitlines(), styles, fillvalue=""):
        console.print(Text(line.rstrip(), style))


class Progress:
    """A line for each domain that works, on a terminal; elsewhere its words line by line, unless `quiet`."""

    def __init__(self, domains: Iterable[str], quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._moves = self._console.is_terminal
        self._width = max(map(len, domains), default=0)
        self._doing: dict[str, tuple[str, Spinner]] = {}
        self._quiet = quiet
        self._said: set[str] = set()

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        if not self._moves:
            yield self
            return
        with Live(get_renderable=self._lines, console=self._console, refresh_per_second=8, transient=True):
            yield self

    def _lines(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        if not self._doing:
            grid.add_row(Spinner("dots"), "Ansible begins")
        for domain, (words, spinner) in self._doing.items():
            name = Text(f"{domain:<{self._width}}", "bold")
            grid.add_row(spinner, name, Text(words, overflow="ellipsis", no_wrap=True))
        return grid

    def _now(self, domain: str, words: str) -> None:
        spinner = self._doing[domain][1] if domain in self._doing else Spinner("dots")
        self._doing[domain] = (words, spinner)

    def task(self, domain: str, name: str) -> None:
        self._now(domain, name.rpartition(" : ")[2])

    def say(self, domain: str, text: str) -> None:
        self._now(domain, text)
        if not (self._moves or self._quiet):
            print(f"{domain:<{self._width}}  {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warning(text)
