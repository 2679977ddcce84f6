"""The report as one HTML page that needs nothing outside it: no script, font, image or link."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hxmlops_evidence.trust import parse_time
from hxmlops_stages.timeline import Timeline
from hxmlops_stages.units import digits, unit_for

COLOURS = 4
"""Colours for domains in the template; more domains begin anew."""


def render_page(report: Mapping[str, Any]) -> str:
    """The page. All text in it is escaped; the same report gives the same bytes."""
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"digits": digits, "duration": duration, "percent": _percent, "clock": _clock}
    total = report["total"]
    upper_j = max((row["energy_j_upper"] for row in report["rows"]), default=0.0)
    return environment.get_template("report.html.j2").render(
        report=report,
        joules=unit_for([total["energy_j"]], "J"),
        grams=unit_for([total["co2e_g"]], "g"),
        colour={one["domain"]: number % COLOURS for number, one in enumerate(report["domains"])},
        waterfall=_waterfall(report["stages"]),
        upper_j=upper_j or 1.0,
        broken=any(link["holds"] is False for one in report["chain"] for link in one["links"]),
    )


def _waterfall(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Bars by "domain/stage", and the axis."""
    spans = [_span(one) for one in stages]
    timeline = Timeline(spans)
    bars: dict[str, list[dict[str, Any]]] = {}
    for one, (start, end) in zip(stages, spans, strict=True):
        place = timeline.at(start)
        bar = {"x": place, "width": max(0.4, timeline.at(end) - place), "attempt": one}
        bars.setdefault(f"{one['domain']}/{one['stage']}", []).append(bar)
    return {
        "bars": bars,
        "grid": timeline.grid,
        "gaps": timeline.gaps,
        "step_s": timeline.step_s,
        "starts": [(timeline.at(start), start) for start, _ in timeline.busy],
    }


def _span(stage: Mapping[str, Any]) -> tuple[float, float]:
    start = parse_time(stage["started_at"]).timestamp()
    return start, start + stage["wall_s"]


def duration(seconds: float) -> str:
    """For people: 0.42 s, 12.3 s, 4 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 120:
        return f"{digits(seconds)} s"
    for size, name, smaller, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {name}" + (f" {rest} {below}" if rest else "")
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
