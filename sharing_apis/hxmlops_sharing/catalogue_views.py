"""What is on record in words and figures for people: sizes, times, signed statements, objects as rows of a table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.statements import PAYLOAD_TYPE, read

MAX_ROWS = 200
MAX_TEXT = 400
MAX_STATEMENT = 1 << 20
"""Bytes of a statement that are read for a page; larger ones are for programs."""
SOON = timedelta(days=14)


def size_text(size: int) -> str:
    """Bytes for people: 512 B, 1.21 KiB, 3.40 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{digits(value)} {unit}"


def digits(value: float) -> str:
    """Three significant digits."""
    for least, form in ((100, ",.0f"), (10, ".1f"), (1, ".2f")):
        if abs(value) >= least:
            return format(value, form)
    return f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """A figure with the prefix that suits it: 27.6 J, 0.493 mg."""
    for size, prefix in ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= size:
            return f"{digits(value / size)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def time_tag(text: str) -> Markup:
    """A time (RFC 3339) as HTML: for people to the minute, for programs as it is."""
    moment = parsed_time(text)
    if moment is None:
        return escape(text)
    words = f"{moment.day} {moment.strftime('%b %Y, %H:%M')} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, text, words)


def parsed_time(text: str) -> datetime | None:
    """None when it is no RFC 3339 time with its zone."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


class Row(NamedTuple):
    """A value at its place in an object: `a / b / [0]`."""

    place: str
    text: str


def rows_of(value: Mapping[str, Any]) -> tuple[list[Row], int]:
    """An object as rows, MAX_ROWS at most, and how many more there are."""
    rows: list[Row] = []
    more = 0
    for row in _rows("", value) if value else ():
        if len(rows) < MAX_ROWS:
            rows.append(row)
        else:
            more += 1
    return rows, more


def _rows(place: str, value: Any) -> Iterator[Row]:
    waiting = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += reversed([(f"{place} / {key}" if place else str(key), each) for key, each in value.items()])
        elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
            waiting += reversed([(f"{place} / [{number}]", each) for number, each in enumerate(value)])
        else:
            yield Row(place, _text(value))


def _text(value: Any) -> str:
    match value:
        case None | {} | []:
            text = "none"
        case bool():
            text = "yes" if value else "no"
        case list():
            text = ", ".join(_text(each) for each in value)
        case _:
            text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


@dataclass(frozen=True)
class Criterion:
    """Something that was checked, as a gate or this server reports it."""

    name: str
    passed: bool
    detail: str = ""


def criteria_of(value: Any) -> list[Criterion]:
    """Criteria from what a gate says: [{criterion, passed, detail}], alone or as the member `criteria`."""
    listed = value.get("criteria") if isinstance(value, dict) else value
    return [
        Criterion(str(each.get("criterion", "")).replace("_", " "), each.get("passed") is True, _detail(each))
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]


def _detail(criterion: Mapping[str, Any]) -> str:
    detail = criterion.get("detail", "")
    return (
        "; ".join(f"{row.place}: {row.text}" for row in _rows("", detail)) if isinstance(detail, dict) else str(detail)
    )


class Fact(NamedTuple):
    label: str
    text: str


class Link(NamedTuple):
    """Something a statement names by its digest."""

    label: str
    digest: str


class Metric(NamedTuple):
    name: str
    value: str
    bounds: str


class Figure(NamedTuple):
    """A quantity and its bounds as declared."""

    value: str
    bounds: str
    share: float
    """Of the largest of its kind in the statement, in percent."""


class Stage(NamedTuple):
    name: str
    status: str
    method: str
    energy: Figure
    carbon: Figure
    location: str
    seconds: str


@dataclass(frozen=True)
class Energy:
    """What the issuer declares to have used, failed attempts counted."""

    stages: list[Stage]
    energy: str
    carbon: str


@dataclass(frozen=True)
class Summary:
    """A signed statement in short. Where it cannot be read, `problem` says why and the rest is empty."""

    place: str
    type: str = ""
    problem: str = ""
    issuer: str = ""
    issued_at: str = ""
    expires_at: str = ""
    expired: bool = False
    decision: str = ""
    facts: list[Fact] = field(default_factory=list)
    particulars: list[Fact] = field(default_factory=list)
    """Whom it is for and where it came from."""
    metrics: list[Metric] = field(default_factory=list)
    criteria: list[Criterion] = field(default_factory=list)
    energy: Energy | None = None
    links: list[Link] = field(default_factory=list)


def summaries(objects: Mapping[str, Mapping[str, Any]]) -> tuple[list[Summary], dict[str, dict[str, Any]]]:
    """The statements among the members of some objects, and the objects without them."""
    found: list[Summary] = []
    rest: dict[str, dict[str, Any]] = {}
    for title, value in objects.items():
        rest[title] = {}
        for name, member in value.items():
            if isinstance(member, dict) and member.get("payloadType") == PAYLOAD_TYPE:
                found.append(summary(name, member))
            else:
                rest[title][name] = member
    return found, rest


def summary(place: str, envelope: Mapping[str, Any]) -> Summary:
    """A statement in short. Nothing of it is verified here but its form."""
    if len(str(envelope.get("payload", ""))) > MAX_STATEMENT:
        return Summary(place, problem="too large to be shown here")
    try:
        return _summary(place, read(dict(envelope)))
    except (Refused, BadInput, LookupError, TypeError, ValueError):
        return Summary(place, problem="it has not the form of a signed statement that this server knows")


def _summary(place: str, statement: Mapping[str, Any]) -> Summary:
    body, issuer = statement["body"], statement["issuer"]
    expires = parsed_time(statement["expires_at"])
    attempts = body.get("stages", [])
    return Summary(
        place=place,
        type=statement["type"],
        issuer=f"{issuer['domain']} ({issuer['party']})",
        issued_at=statement["issued_at"],
        expires_at=statement["expires_at"],
        expired=expires is not None and expires <= datetime.now(UTC),
        decision=str(body.get("decision", "")),
        facts=list(_facts(statement["type"], body)),
        particulars=[
            Fact("For", statement["audience"]),
            Fact("Workflow", statement["workflow_id"]),
            Fact("Run", statement["run_id"]),
            Fact("Sequence", str(statement["sequence"])),
            Fact("Signing key", issuer["key_id"]),
        ],
        metrics=[_metric(name, value) for name, value in sorted(body.get("metrics", {}).items())],
        criteria=criteria_of(body.get("criteria", [])),
        energy=energy_of(attempts) if attempts else None,
        links=list(_links(statement)),
    )


def _facts(type_: str, body: Mapping[str, Any]) -> Iterator[Fact]:
    match type_:
        case "evidence":
            yield Fact("Format", body["format"])
            yield Fact("Files", ", ".join(sorted(body["files"])))
            yield Fact("Training ran confined", _text(body["training"]["sandboxed"]))
        case "protection":
            yield from _protection(body)
        case "acceptance":
            yield Fact("Of the vendor", body["vendor"])
            yield Fact("Attempt", str(body["attempt"]))
            yield Fact("Proposed by", body["proposer"]["person"])
        case "approval":
            yield Fact("By", body["person"])
            yield Fact("For the domain", body["target_domain"])
        case "receipt":
            yield Fact("Recipient", body["recipient"])
            yield Fact("Size", size_text(body["bytes"]))


def _protection(body: Mapping[str, Any]) -> Iterator[Fact]:
    report = body["report"]
    yield Fact("Part", body["role"])
    yield Fact("Claim", report["claim"])
    yield Fact("k-anonymity", f"k = {report['k']['reached']} reached, {report['k']['required']} required")
    yield Fact(
        "Quasi-identifiers", ", ".join(f"{name} ({_text(how)})" for name, how in report["quasi_identifiers"].items())
    )
    for name, each in report["sensitive"].items():
        yield Fact(
            f"Sensitive: {name}",
            f"l = {each['l_reached']} reached, {each['l_required']} required; "
            f"t = {each['t_reached']:g} reached, at most {each['t_required']:g}",
        )
    shares = f"{percent(report['suppression_share'])}, limit {percent(report['suppression_limit'])}"
    yield Fact("Rows", f"{report['rows_in']:,} in, {report['rows_suppressed']:,} suppressed ({shares})")
    loss = ", ".join(f"{name} {percent(share)}" for name, share in report["information_loss"].items())
    yield Fact("Information loss", loss)
    yield Fact("Rows unique over all columns", percent(report["unique_share_all_columns"]))
    yield Fact("Columns released", ", ".join(body["schema_columns"]))
    yield Fact("Columns dropped", ", ".join(body["recipe"]["drop"]) or "none")


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _metric(name: str, value: Mapping[str, Any]) -> Metric:
    bounds = f"{value['lower']:.4g} to {value['upper']:.4g}" if "lower" in value else ""
    return Metric(name.replace("_", " "), f"{value['value']:.4g}", bounds)


def energy_of(attempts: Iterable[Mapping[str, Any]]) -> Energy:
    attempts = list(attempts)
    largest = {key: max(each[key] for each in attempts) or 1 for key in ("energy_j_upper", "co2e_g_upper")}

    def figure(each: Mapping[str, Any], key: str, unit: str) -> Figure:
        lower, upper = each[f"{key}_lower"], each[f"{key}_upper"]
        bounds = f"{quantity(lower, unit)} to {quantity(upper, unit)}"
        return Figure(quantity(each[key], unit), bounds, 100 * each[key] / largest[f"{key}_upper"])

    stages = [
        Stage(
            each["stage"].replace("_", " "),
            each["status"].replace("_", " "),
            each["method"],
            figure(each, "energy_j", "J"),
            figure(each, "co2e_g", "g"),
            f"{each['location']}, {each['intensity_g_per_kwh']:g} g/kWh",
            f"{digits(each['wall_s'])} s",
        )
        for each in attempts
    ]
    joules, grams = (sum(each[key] for each in attempts) for key in ("energy_j", "co2e_g"))
    return Energy(stages, quantity(joules, "J"), quantity(grams, "g"))


def _links(statement: Mapping[str, Any]) -> Iterator[Link]:
    """What it is made of, by digest: its inputs, and the members of its body that name one."""
    yield Link("subject", statement["subject_digest"])
    yield Link("contract", statement["contract_digest"])
    for name, digest in statement["inputs"].items():
        yield Link(f"input {name}", digest)
    body = {key: value for key, value in statement["body"].items() if key not in ("recipe", "schema_columns", "report")}
    for place, text in _rows("", body):
        if text.startswith("sha256:") and not place.endswith("key_id"):
            yield Link(place.removesuffix("_digest").replace("_", " "), text)


def expiry(text: str) -> str:
    """`expired`, `soon` or "" for a time (RFC 3339)."""
    moment = parsed_time(text)
    if moment is None or moment <= datetime.now(UTC):
        return "expired"
    return "soon" if moment <= datetime.now(UTC) + SOON else ""
