"""The report as a table for a terminal: a row for each stage, totals for each domain."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, Literal

from hxmlops_stages.units import Unit, digits, unit_for

WIDTH = 110


def render_table(report: Mapping[str, Any], *, terminal: bool | None = None) -> str:
    """The table in lines of at most 110 columns, with colours for a terminal, else plain.

    `terminal`: by default whether standard output is one.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty() if terminal is None else terminal
    total = report["total"]
    joules, grams = unit_for([total["energy_j"]], "J"), unit_for([total["co2e_g"]], "gCO2e")
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("domain", "stage", "status"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    rows = list(_rows(report, joules, grams))
    headers = ("s", joules.symbol, "[lower\N{EN DASH}upper]", grams.symbol)
    for place, name in enumerate(headers, start=3):
        width = max(len(name), *(len(cells[place]) for cells, _ in rows))
        justify: Literal["left", "right"] = "left" if name.startswith("[") else "right"
        table.add_column(Text(name), no_wrap=True, min_width=width, justify=justify)
    table.add_column("method")
    for cells, style in rows:
        table.add_row(*map(Text, cells), style=style)  # Text: a name is not markup

    text = StringIO()
    console = Console(file=text, width=WIDTH, force_terminal=terminal, color_system="standard" if terminal else None)
    console.print(table)
    for place in report["intensities"]:
        line = f"{', '.join(place['domains'])}: {place['location']}, {digits(place['g_per_kwh'])} gCO2e/kWh, "
        console.print(Text(line + place["source"]), no_wrap=True, overflow="ellipsis")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _rows(report: Mapping[str, Any], joules: Unit, grams: Unit) -> Iterator[tuple[list[str], str]]:
    """(cells, style) of every line."""
    for domain in report["domains"]:
        stages = [row for row in report["rows"] if row["domain"] == domain["domain"]]
        for row in stages:
            style = "" if row["status"] == "done" else "red"
            yield [row["domain"], _times(row["stage"], row), row["status"], *_figures(row, joules, grams)], style
        if stages:
            yield [domain["domain"], _times("total", domain), "", *_figures(domain, joules, grams)], "bold"
    total = report["total"]
    yield ["all", _times("total", total), "", *_figures(total, joules, grams)], "bold"


def _times(name: str, figures: Mapping[str, Any]) -> str:
    times = f" \N{MULTIPLICATION SIGN}{figures['attempts']}" if figures["attempts"] != 1 else ""
    failed = f" ({figures['failed']} failed)" if figures["failed"] else ""
    return name + times + failed


def _figures(figures: Mapping[str, Any], joules: Unit, grams: Unit) -> list[str]:
    return [
        digits(figures["wall_s"]),
        joules(figures["energy_j"]),
        f"[{joules(figures['energy_j_lower'])}\N{EN DASH}{joules(figures['energy_j_upper'])}]",
        grams(figures["co2e_g"]),
        ", ".join(figures["methods"]),
    ]
