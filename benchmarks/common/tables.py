"""Figures as tables, wide enough wherever they are printed."""

from rich.console import Console
from rich.table import Table


def columns(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("what", "is") else "right")
    return table


def show(table: Table) -> None:
    console = Console()
    Console(width=max(console.width, 140)).print(table)
