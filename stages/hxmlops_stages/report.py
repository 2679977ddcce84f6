"""Report: what a version of a model cost, what was checked, and what it was made from, as one domain sees it.

Parameter `records`: energy records of this domain's stages for this version, failed attempts too, each with `run_id`.
Reads, where there is any: statements/*.dsse.json (signed statements, made or received), serving.json (what the model
server serves), data.csv (the raw data, for its digest), gates/<name>.json (criteria of a gate of this domain).

Leaves `report.json` (figures in SI units, g and g/kWh), `report.html` (one page that needs nothing outside it)
and `report.txt` (the table for a terminal). The same input gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.statements import read, statement_digest, verify
from hxmlops_evidence.trust import Trust, parse_time
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.report_data import SUMMED, Seen, Stage, build
from hxmlops_stages.report_page import render_page
from hxmlops_stages.report_table import render_table
from hxmlops_stages.signing import read_json

_NEEDED = (
    *SUMMED,
    "stage",
    "status",
    "attempt_id",
    "started_at",
    "method",
    "source",
    "run_id",
    "location",
    "intensity_g_per_kwh",
    "intensity_source",
)
_ISSUERS = {"protection": "owner", "evidence": "vendor", "acceptance": "acceptor"}


def run(context: Context) -> Outcome:
    """BadInput for a record that lacks a figure; Refused when a peer's statement was not signed by its pinned key."""
    given = context.input
    raw_data = given / "data.csv"
    report = build(
        context.workflow,
        context.domain_name,
        _records(_printable(context.parameters["records"])),
        _statements(context, map(read_json, sorted((given / "statements").glob("*.dsse.json")))),
        current=_served(given / "serving.json", context.workflow["id"]),
        raw_data_digest=sha256_file(raw_data) if raw_data.exists() else None,
        gates={
            _printable(file.stem): _printable(read_json(file)["criteria"])
            for file in sorted((given / "gates").glob("*.json"))
        },
    )
    (context.output / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    (context.output / "report.html").write_text(render_page(report), encoding="utf-8")
    (context.output / "report.txt").write_text(render_table(report, terminal=False), encoding="utf-8")
    total = report["total"]
    return Outcome(
        f"{total['energy_j']:.3g} J ({total['energy_j_lower']:.3g} to {total['energy_j_upper']:.3g}), "
        f"{total['co2e_g']:.3g} g CO2e; {', '.join(total['methods']) or 'no stages'}",
        metrics={key: total[key] for key in SUMMED},
        changed=False,  # it shows what is on record
    )


def _records(records: Iterable[Stage]) -> list[Stage]:
    checked = []
    for number, record in enumerate(records):
        if missing := [key for key in _NEEDED if key not in record]:
            raise BadInput(f"parameters.records[{number}]: lacks {', '.join(missing)}")
        checked.append(record)
    return checked


def _served(serving: Path, name: str) -> dict[str, str] | None:
    """`version` and `model_digest` of the version that answers requests, None where none does."""
    model = read_json(serving)["models"].get(name) if serving.exists() else None
    if not model or not model["current"]:
        return None
    return {"version": model["current"], "model_digest": model["versions"][model["current"]]["model_digest"]}


def _statements(context: Context, envelopes: Iterable[dict[str, Any]]) -> list[Seen]:
    """What the envelopes say. Signatures are judged as of their time: a report also tells of what has expired since.

    A domain's own statements come from its own records and are not verified; a person's approval always is.
    """
    trust, found = Trust(context.domain / "trust"), []
    for envelope in envelopes:
        statement = read(envelope)
        type_ = statement["type"]
        own = type_ != "approval" and statement["issuer"]["domain"] == context.domain_name
        if not own:
            verify(
                envelope,
                trust,
                type_=type_,
                issuer=context.workflow[_ISSUERS[type_]] if type_ in _ISSUERS else None,
                workflow_id=context.workflow["id"],
                audience=statement["audience"],
                contract_digest=None,
                now=parse_time(statement["issued_at"]),
            )
        found.append(Seen(_printable(statement), statement_digest(envelope), own))
    return found


def _printable(value: Any) -> Any:
    """The same without characters that a terminal or a browser would obey: others wrote it."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value
