"""The report: one domain's view of what a model version cost, what was checked, and what it was made from."""

import copy
import html.parser
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import keys, statements
from hxmlops_evidence.digests import sha256_bytes
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.trust import import_card
from hxmlops_stages import report
from hxmlops_stages.carbon import grams
from hxmlops_stages.energy import estimate
from hxmlops_stages.program import Context
from hxmlops_stages.report_page import duration
from hxmlops_stages.report_table import WIDTH, render_table
from hxmlops_stages.timeline import Timeline
from hxmlops_stages.units import digits, unit_for

WORKFLOW = {
    "id": "churn",
    "version": "1.0",
    "owner": "mno-production",
    "vendor": "software-vendor",
    "acceptor": "mno-staging",
    "server": "mno-production",
}
LOCATIONS = {"mno-production": "NO", "software-vendor": "DE", "mno-staging": "SE"}
START = datetime(2026, 11, 23, 9, 29, 50, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script><img src=x onerror=y>\x1b[31m\u202e[bold]'

Parameters = dict[str, Any]


def record(domain: str, stage: str, at_s: float, wall_s: float, cpu_s: float, **other: Any) -> dict[str, Any]:
    """An energy record as the meter makes it."""
    joules = estimate(cpu_s, wall_s, 2, 0.4)
    footprint = grams(joules, LOCATIONS[domain])
    energy = dict(zip(("energy_j", "energy_j_lower", "energy_j_upper"), joules, strict=True))
    carbon = dict(zip(("co2e_g", "co2e_g_lower", "co2e_g_upper"), footprint[:3], strict=True))
    return {
        "stage": stage,
        "status": "done",
        "attempt_id": sha256_bytes(f"{stage} {at_s}".encode())[7:23],
        "started_at": (START + timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z"),
        "method": "estimated",
        "source": "cgroup v2, Cloud Carbon Footprint coefficients",
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "vcpu": 2,
        "memory_gb": 0.4,
        **energy,
        **carbon,
        "location": LOCATIONS[domain],
        "intensity_g_per_kwh": footprint.intensity_g_per_kwh,
        "intensity_source": footprint.source,
        **other,
    }


OWN = [
    record("mno-production", "data_validation", 0, 0.9, 1.0, run_id="run-1"),
    record("mno-production", "anonymization", 1.1, 2.2, 3.1, run_id="run-1"),
    record("mno-production", "encryption", 3.5, 0.6, 0.5, run_id="run-1"),
    record("mno-production", "publish", 4.3, 0.5, 0.4, run_id="run-1"),
    record("mno-production", "gate", 5417, 0.9, 0.9, run_id="run-2", status="refused"),
    record("mno-production", "gate", 5431, 0.8, 0.9, run_id="run-3"),
    record("mno-production", "promotion", 5432, 2.4, 1.1, run_id="run-3", method="measured"),
]
DECLARED = {
    "protection": [{key: one[key] for key in one if key != "run_id"} for one in OWN[:2]],
    "evidence": [
        record("software-vendor", "fetch", 6, 0.6, 0.5),
        record("software-vendor", "data_validation", 6.8, 0.8, 0.8),
        record("software-vendor", "training", 7.8, 3.1, 3.6, status="failed"),
        record("software-vendor", "training", 14.0, 9.4, 12.8),
        record("software-vendor", "testing", 23.6, 1.9, 2.4),
    ],
    "acceptance": [
        record("mno-staging", "fetch", 27, 0.6, 0.5),
        record("mno-staging", "gate", 27.8, 0.9, 0.9),
        record("mno-staging", "testing", 28.9, 1.8, 2.2),
    ],
    "approval": [],
}


def statement(type_: str) -> dict[str, Any]:
    """A statement of the evidence package's examples, with the stages above."""
    text = resources.files("hxmlops_evidence").joinpath("examples", f"{type_}.json").read_text()
    example: dict[str, Any] = json.loads(text)
    if type_ != "approval":
        example["body"]["stages"] = copy.deepcopy(DECLARED[type_])
    return example


class Parties:
    """The folders of the three domains, each with its keys, and everybody's card pinned everywhere."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, {}
        cards = []
        for domain in LOCATIONS:
            keys.make_keys(folder / domain / "keys")
            party = "vendor" if domain == "software-vendor" else "operator"
            cards.append(keys.make_card(folder / domain / "keys", party=party, domain=domain))
            self.keys[domain] = keys.load_signing_key(folder / domain / "keys" / "signing.pem")
        cards.append(keys.make_person(folder / "people", party="operator", person="grace"))
        self.keys["grace"] = keys.load_signing_key(folder / "people" / "grace.pem")
        for domain in LOCATIONS:
            for card in cards:
                import_card(folder / domain / "trust", card, card["fingerprint"])

    def sign(self, said: dict[str, Any], by: str | None = None) -> dict[str, Any]:
        signer = by or ("grace" if said["type"] == "approval" else said["issuer"]["domain"])
        return statements.sign(said, self.keys[signer])

    def parameters(self) -> Parameters:
        """All that production holds of a promoted version; each statement names the one before."""
        protection = self.sign(statement("protection"))
        said = {type_: statement(type_) for type_ in ("evidence", "acceptance", "approval")}
        said["evidence"]["body"]["dataset"]["statement_digest"] = statements.statement_digest(protection)
        acceptance = self.sign(said["acceptance"])
        said["approval"]["body"]["acceptance_digest"] = statements.statement_digest(acceptance)
        model = said["evidence"]["subject_digest"]
        return {
            "records": copy.deepcopy(OWN),
            "statements": {
                "protection": protection,
                "evidence": self.sign(said["evidence"]),
                "acceptance": acceptance,
                "approval": self.sign(said["approval"]),
            },
            "current": {"version": "1.0.1", "model_digest": model},
            "gates": {"promotion": [{"criterion": "approver_not_proposer", "passed": True}]},
        }

    def report(self, parameters: Parameters, domain: str = "mno-production") -> "Made":
        output, given = self.folder / domain / "output", self.folder / domain / "input"
        output.mkdir(exist_ok=True)
        _lay_out(parameters, given)
        spec = {"stage": "report", "domain": domain, "party": "operator", "workflow": WORKFLOW, "contract": {}}
        spec |= {"contract_digest": sha256_bytes(b"contract"), "parameters": {"records": parameters["records"]}}
        context = Context(spec, given, output, self.folder / domain, "run-4", LOCATIONS[domain])
        return Made(report.run(context).summary, output)


def _lay_out(given: Parameters, folder: Path) -> None:
    """As files, which is how the stage is given all but the records."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("statements", "gates"):
        (folder / part).mkdir(parents=True)
    for type_, envelope in given["statements"].items():
        if envelope:
            (folder / "statements" / f"{type_}.dsse.json").write_text(json.dumps(envelope))
    for name, criteria in given.get("gates", {}).items():
        (folder / "gates" / f"{name.replace('/', '|')}.json").write_text(json.dumps({"criteria": criteria}))
    current = given["current"]
    versions = {current["version"]: {"model_digest": current["model_digest"]}} if current else {}
    model = {"current": current and current["version"], "versions": versions}
    (folder / "serving.json").write_text(json.dumps({"models": {WORKFLOW["id"]: model}}))
    (folder / "data.csv").write_bytes(b"raw")


class Made:
    def __init__(self, summary: str, output: Path) -> None:
        self.summary = summary
        self.data: dict[str, Any] = json.loads((output / "report.json").read_bytes())
        self.page = (output / "report.html").read_text(encoding="utf-8")
        self.table = (output / "report.txt").read_text(encoding="utf-8")

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(row["domain"], row["stage"]): row for row in self.data["rows"]}


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("parties"))


@pytest.fixture(scope="module")
def made(parties: Parties) -> Made:
    return parties.report(parties.parameters())


# Figures


def test_own_stages_come_from_own_records_and_others_as_declared(made: Made) -> None:
    rows = made.rows()
    assert rows["mno-production", "anonymization"]["methods"] == ["estimated"]
    assert rows["mno-production", "promotion"]["methods"] == ["measured"]
    assert rows["software-vendor", "testing"]["methods"] == ["declared", "estimated"]
    assert len([one for one in made.data["stages"] if one["stage"] == "anonymization"]) == 1  # also in protection


def test_failed_attempts_are_shown_and_counted(made: Made) -> None:
    training = made.rows()["software-vendor", "training"]
    assert (training["attempts"], training["failed"], training["status"]) == (2, 1, "done")
    assert training["energy_j"] == pytest.approx(sum(one["energy_j"] for one in DECLARED["evidence"][2:4]))
    assert made.data["total"]["failed"] == 2
    assert "training \N{MULTIPLICATION SIGN}2 (1 failed)" in made.table
    assert "2 attempts, 1 failed" in made.page


def test_totals_and_their_bounds_are_sums(made: Made) -> None:
    everything = [*OWN, *DECLARED["evidence"], *DECLARED["acceptance"]]
    for key in ("energy_j", "energy_j_lower", "energy_j_upper", "co2e_g", "co2e_g_upper", "wall_s"):
        assert made.data["total"][key] == pytest.approx(sum(one[key] for one in everything))
        assert made.data["total"][key] == pytest.approx(sum(one[key] for one in made.data["domains"]))


def test_grams_say_their_place_source_and_year(made: Made) -> None:
    places = {place["location"]: place for place in made.data["intensities"]}
    assert places["NO"]["domains"] == ["mno-production"]
    assert places["DE"]["source"].endswith("average of 2023")
    assert places["DE"]["source"] in made.page


def test_carbon_is_given_for_each_promoted_version(parties: Parties, made: Made) -> None:
    assert made.data["sci"]["co2e_g"] == made.data["total"]["co2e_g"]
    assert "operational carbon only" in made.page
    waiting = parties.report(parties.parameters() | {"current": None})
    assert waiting.data["sci"] is None
    assert waiting.data["verdicts"][-1]["state"] == "pending"


# Findings


def test_the_chain_leads_from_raw_data_to_the_served_model(made: Made) -> None:
    assert [one["title"] for one in made.data["chain"]] == [
        "Raw data",
        "Training data, released",
        "Model",
        "Acceptance",
        "Approval",
        "Served",
    ]
    links = {link["text"]: link["holds"] for one in made.data["chain"] for link in one["links"]}
    assert links == {
        "trained on the released data": True,
        "is of this model": True,
        "tested on the hidden data": None,  # production has not kept that statement
        "is of this acceptance": True,
        "is this model": True,
    }
    assert "the chain is broken" not in made.page


def test_a_broken_chain_is_seen(parties: Parties) -> None:
    parameters = parties.parameters()
    parameters["current"]["model_digest"] = sha256_bytes(b"another model")
    made = parties.report(parameters)
    assert made.data["chain"][-1]["links"] == [{"text": "is this model", "holds": False}]
    assert "the chain is broken" in made.page


def test_metrics_gates_and_protection_are_told(made: Made) -> None:
    assert made.data["metrics"]["declared"]
    assert made.data["metrics"]["values"]["roc_auc"] == {"value": 0.921, "lower": 0.903, "upper": 0.938}
    assert [gate["gate"] for gate in made.data["gates"]] == ["acceptance", "promotion"]
    privacy = made.data["privacy"]
    assert privacy["claim"].endswith("not anonymous in the sense of the GDPR")
    assert privacy["claim"] in made.page
    assert (privacy["k"]["reached"], privacy["unique_share_all_columns"]) == (6, 0.998)


def test_a_rejected_model_is_seen_as_such(parties: Parties) -> None:
    said = statement("acceptance")
    said["body"]["decision"] = "rejected"
    said["body"]["criteria"] = [{"criterion": "roc_auc", "passed": False}]
    parameters = parties.parameters() | {"current": None, "gates": {}}
    parameters["statements"] |= {"acceptance": parties.sign(said), "approval": None}
    made = parties.report(parameters)
    assert [step["state"] for step in made.data["verdicts"]] == ["passed", "passed", "failed", "pending", "pending"]
    assert "0 of 1 passed" in made.page


def test_a_domain_that_knows_little_reports_that(parties: Parties) -> None:
    nothing: Parameters = {"records": [], "statements": {"protection": None}, "current": None}
    made = parties.report(nothing, "software-vendor")
    assert made.summary == "0 J (0 to 0), 0 g CO2e; no stages"
    assert "No signed evidence was seen here" in made.page
    assert {step["state"] for step in made.data["verdicts"]} == {"pending"}


# Trust


def test_a_statement_of_another_key_is_refused(parties: Parties) -> None:
    parameters = parties.parameters()
    parameters["statements"]["evidence"] = parties.sign(statement("evidence"), by="mno-staging")
    with pytest.raises(Refused):
        parties.report(parameters)


def test_a_statement_by_another_than_the_workflow_says_is_refused(parties: Parties) -> None:
    parameters = parties.parameters()
    said = statement("evidence")
    said["issuer"] = statement("acceptance")["issuer"]
    parameters["statements"]["evidence"] = parties.sign(said)
    with pytest.raises(Refused, match="must be signed by software-vendor"):
        parties.report(parameters)


def test_expired_statements_are_still_history(parties: Parties) -> None:
    parameters = parties.parameters()
    said = statement("acceptance") | {"issued_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-31T00:00:00Z"}
    parameters["statements"]["acceptance"] = parties.sign(said)
    assert parties.report(parameters).data["verdicts"][2]["expires_at"] == "2020-01-31T00:00:00Z"


def test_a_record_that_lacks_a_figure_is_bad_input(parties: Parties) -> None:
    parameters = parties.parameters()
    del parameters["records"][2]["energy_j_upper"]
    with pytest.raises(BadInput, match=r"records\[2\]: lacks energy_j_upper"):
        parties.report(parameters)


# The page and the table


class Tags(html.parser.HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs


def test_the_page_needs_nothing_outside_it(made: Made) -> None:
    tags = Tags(made.page)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(tags.names)
    assert not {"src", "href", "xlink:href", "onclick", "onload"} & {name for name, _ in tags.attributes}
    assert not re.findall(r"url\(|@import|https?:", made.page)
    assert made.page.startswith("<!doctype html>")


def test_what_others_wrote_is_text_and_nothing_else(parties: Parties) -> None:
    parameters = parties.parameters()
    parameters["records"][0] |= {"stage": HOSTILE, "source": HOSTILE, "run_id": HOSTILE}
    for type_ in ("protection", "evidence"):
        said = statement(type_)
        said["body"]["stages"][0] |= {"stage": HOSTILE[:64], "source": HOSTILE, "intensity_source": HOSTILE}
        if type_ == "protection":
            said["body"]["report"] |= {"claim": HOSTILE, "quasi_identifiers": {HOSTILE: HOSTILE}}
        parameters["statements"][type_] = parties.sign(said)
    parameters["gates"] = {HOSTILE: [{"criterion": HOSTILE, "passed": False}]}
    made = parties.report(parameters)
    assert not {"script", "img"} & set(Tags(made.page).names)
    assert "&lt;script&gt;" in made.page
    assert not [char for char in made.page + made.table if not char.isprintable() and char != "\n"]


def test_every_figure_bears_its_method(made: Made) -> None:
    rows = made.page.split('<div class="row')[2:]
    assert len(rows) == len(made.data["rows"]) + len(made.data["domains"])
    assert all('class="badge ' in row for row in rows)


def test_the_same_parameters_give_the_same_bytes(parties: Parties) -> None:
    parameters = parties.parameters()
    first, second = parties.report(parameters), parties.report(parameters)
    assert (first.page, first.table, first.data) == (second.page, second.table, second.data)


def test_the_table_is_plain_where_there_is_no_terminal(made: Made) -> None:
    lines = made.table.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in made.table
    assert re.match(r"domain +stage +status +s +J +\[lower.upper\] +mgCO2e +method$", lines[0])
    [training] = [line for line in lines if " training " in line]
    assert training.startswith("software-vendor  training")
    assert training.endswith("declared, estimated")
    assert len([line for line in lines if " total " in line]) == 4


def test_the_table_has_colours_on_a_terminal(made: Made) -> None:
    assert "\x1b[" in render_table(made.data, terminal=True)
    assert render_table(made.data) == made.table  # pytest's output is no terminal


# Units and the time axis


def test_figures_have_three_digits_in_one_unit() -> None:
    unit = unit_for([0.0123, 0.0004], "g")
    assert (unit.symbol, unit(0.0123), unit(0.0004)) == ("mg", "12.3", "0.400")
    assert [digits(value) for value in (0, 1e-9, 0.5, 1.234, 12.34, 1234.5)] == [
        "0",
        "<0.001",
        "0.500",
        "1.23",
        "12.3",
        "1,234",
    ]
    assert [duration(value) for value in (0.42, 245, 12000, 187200)] == [
        "0.420 s",
        "4 min 5 s",
        "3 h 20 min",
        "2 d 4 h",
    ]


def test_long_gaps_are_cut_short_on_the_time_axis() -> None:
    timeline = Timeline([(0, 10), (11, 20), (5000, 5010)])
    assert timeline.busy == [(0, 20), (5000, 5010)]
    assert [timeline.at(time) for time in (0, 20, 5000, 5010)] == pytest.approx([0, 65, 67.5, 100])
    assert timeline.gaps[0] == pytest.approx((65, 2.5, 4980))
    assert timeline.step_s == 5
