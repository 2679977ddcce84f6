"""Grams of CO2e of an amount of electricity, by the yearly average of the country where it was used."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hxmlops_evidence.errors import BadInput

if TYPE_CHECKING:
    from hxmlops_stages.energy import Joules

J_PER_KWH = 3.6e6

_FILE = Path(__file__).parent / "data" / "carbon_intensity.csv"

_ALIASES = {
    "UK": "GB",
    "EL": "GR",
    "FALSE": "NO",  # YAML reads an unquoted NO as false
}


class Intensity(NamedTuple):
    """Carbon intensity of a country's electricity: g CO2e/kWh, average of `year`."""

    g_per_kwh: float
    name: str
    year: int

    @property
    def source(self) -> str:
        return f"Our World in Data / Ember (CC BY 4.0), average of {self.year}"


class Footprint(NamedTuple):
    """Operational g CO2e with bounds, and the intensity that they were made with."""

    g: float
    lower: float
    upper: float
    intensity_g_per_kwh: float
    source: str


def grams(joules: Joules, location: str) -> Footprint:
    """Energy x intensity. The bounds are the energy's; the average of a year is taken as exact. BadInput."""
    place = intensity(location)
    g_per_j = place.g_per_kwh / J_PER_KWH
    value, lower, upper = (energy_j * g_per_j for energy_j in joules)
    return Footprint(value, lower, upper, place.g_per_kwh, place.source)


def intensity(location: str) -> Intensity:
    """The figure for an ISO 3166-1 alpha-2 code. BadInput with near matches, never a default, if unknown."""
    known = table()
    if location in known:
        return known[location]
    raise BadInput(f"location {location!r}: not a known ISO 3166-1 alpha-2 country code{_hint(location)}")


@cache
def table() -> dict[str, Intensity]:
    """All known places by code."""
    text = _FILE.read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["code"]: Intensity(float(row["g_co2e_per_kwh"]), row["name"], int(row["year"])) for row in rows}


def _hint(location: str) -> str:
    from difflib import get_close_matches

    known = table()
    upper = location.strip().upper()
    alias = _ALIASES.get(upper, upper)
    if alias in known:
        codes = [alias]
    else:
        names = {place.name.upper(): code for code, place in known.items()}
        close = get_close_matches(upper, names, cutoff=0.75) or get_close_matches(upper, known, cutoff=0.5)
        codes = [names.get(match, match) for match in close]
    if not codes:
        return "; give one such as DE or US"
    return "; did you mean " + " or ".join(f"{code} ({known[code].name})" for code in codes) + "?"
