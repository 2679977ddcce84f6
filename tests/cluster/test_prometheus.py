"""What Prometheus itself says of its configuration, its rules, and the questions that the dashboards ask it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.test_dashboards import DASHBOARDS, expressions, filled
from tests.cluster.clusters import tools
from tests.cluster.test_charts import CASES, RELEASE, config, rendered


def promcheck(folder: Path, *arguments: str) -> str:
    """What Prometheus's own code finds wrong with a configuration and rules."""
    command = [str(tools()["promcheck"] / "promcheck"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("file", [file for name, file in CASES if name == "prometheus"])
def test_configuration_and_rules_are_right(tmp_path: Path, file: Path | None) -> None:
    for name, text in config(rendered("prometheus", file), f"{RELEASE}-config").items():
        (tmp_path / name).write_text(text)
    assert promcheck(tmp_path, "--config", "prometheus.yml", "rules.yml") == ""


def test_a_mistake_in_either_is_found(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text("scrape_configs: [{job_name: x, kubernetes_sd_configs: [{role: pods}]}]")
    (tmp_path / "rules.yml").write_text("groups: [{name: x, rules: [{record: y, expr: 'sum by (x'}]}]")
    found = promcheck(tmp_path, "--config", "prometheus.yml", "rules.yml")
    assert "unknown Kubernetes SD role" in found
    assert "could not parse expression" in found


def test_the_questions_of_the_dashboards_parse(tmp_path: Path) -> None:
    panels = [panel for dashboard in DASHBOARDS.values() for panel in dashboard["panels"]]
    every = [filled(expression) for panel in panels for expression in expressions(panel)]
    rules = [{"record": f"r{number}", "expr": expression} for number, expression in enumerate(every)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    assert promcheck(tmp_path, "rules.yml") == ""
