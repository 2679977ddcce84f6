"""The dashboards ask for nothing that nobody measures, and never show a figure of energy without its method."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "collections" / "ansible_collections" / "hxmlops" / "mlops" / "roles"
FILES = ROLES / "grafana" / "chart" / "files"
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted(FILES.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}") for name, d in DASHBOARDS.items() for panel in d["panels"]
]

RECORDED = set(re.findall(r"record: (\w+)", (ROLES / "prometheus/chart/templates/_rules.tpl").read_text()))
EXPORTED = {
    # Prometheus, of every target and of itself
    "up",
    "prometheus_tsdb_head_series",
    "prometheus_tsdb_storage_blocks_bytes",
    "prometheus_tsdb_wal_storage_size_bytes",
    "prometheus_rule_group_iterations_missed_total",
    "prometheus_remote_storage_samples_failed_total",
    # Kepler 0.11 and Scaphandre 1.0
    "kepler_node_cpu_active_watts",
    "kepler_node_cpu_idle_watts",
    "scaph_host_power_microwatts",
    # TensorFlow Serving and TorchServe; the model server and the sharing APIs have no metrics yet
    ":tensorflow:serving:request_count",
    ":tensorflow:serving:request_latency_bucket",
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
    "Requests4XX",
    "Requests5XX",
}
VARIABLES = {"$__range": "1h", "$__rate_interval": "1m", "$intensity": "380.9"}


def expressions(panel: dict[str, Any]) -> Iterator[str]:
    for target in panel["targets"]:
        yield target["expr"]


def filled(expression: str) -> str:
    """As Prometheus gets it: with values for Grafana's variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return re.sub(r"\$\w+", "x", expression)


def metrics(expression: str) -> set[str]:
    """Names in an expression that are neither functions, keywords, labels nor strings."""
    bare = re.sub(r'"[^"]*"', '""', filled(expression))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right) \([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    return set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)) - {"by", "and", "or", "unless", "bool"}


def test_uids_are_unique_and_of_ours() -> None:
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert len(uids) == len(set(uids)) == 3
    assert all(uid.startswith("hxmlops-") for uid in uids)
    assert all("hxmlops" in dashboard["tags"] for dashboard in DASHBOARDS.values())


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", PANELS)
def test_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "prometheus"}


@pytest.mark.parametrize("panel", PANELS)
def test_every_metric_is_one_that_is_measured(panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        assert metrics(expression)
        assert metrics(expression) <= RECORDED | EXPORTED


@pytest.mark.parametrize("panel", PANELS)
def test_energy_never_comes_without_its_method(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        if re.search(r"joules|watts|energy", " ".join(metrics(target["expr"]))):
            assert 'method="$method"' in target["expr"]
            assert "$method" in panel["title"]
            assert "{{method}}" in target["legendFormat"] or target.get("format") == "table"


def test_variables_ask_for_what_is_measured_too() -> None:
    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                assert variable["datasource"]["uid"] == "prometheus"
                name = re.match(r"label_values\(([\w:]+)", variable["definition"])
                assert name
                assert name[1] in RECORDED | EXPORTED
        used = set(re.findall(r"\$([a-z]+)", json.dumps(dashboard["panels"])))
        assert used <= {variable["name"] for variable in dashboard["templating"]["list"]}


def test_what_is_scraped_and_kept_has_these_metrics() -> None:
    config = (ROLES / "prometheus/chart/templates/_config.tpl").read_text()
    kept = re.findall(r"regex: ((?:prometheus|kepler|scaph)_.+)", config)
    for metric in EXPORTED:
        if metric.startswith(("prometheus_", "kepler_", "scaph_")):
            own = [rule.split(";")[0] for rule in kept]
            assert any(re.fullmatch(rule, metric) for rule in own), metric


def test_carbon_intensities_are_those_of_the_stages() -> None:
    """One table in two parts of the project, as neither can read the other's files where it is installed."""
    theirs = ROOT / "stages" / "hxmlops_stages" / "data" / "carbon_intensity.csv"
    assert (FILES / "carbon_intensity.csv").read_text() == theirs.read_text(), f"copy it from {theirs}"
