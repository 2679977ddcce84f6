"""Every module's role and chart are of the one form; tests/cluster/test_charts.py has what needs helm and a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from hxmlops_sharing.tokens import read_tokens
from tests.charts import pack
from tests.charts.modules import MODULES, ROLES, chart, full, merged, module, read, schema

FILES = (
    "README.md", "defaults/main.yml", "meta/argument_specs.yml",
    "tasks/main.yml", "tasks/status.yml", "tasks/info.yml",
    "chart/Chart.yaml", "chart/values.yaml", "chart/values.schema.json", "chart/charts/library-1.0.0.tgz",
)  # fmt: skip
KEYS = {"title", "summary", "version", "needs", "privileged", "secrets", "values", "ports", "runtime_images"}
VARIABLES = ("state", "name", "values", "values_file", "secrets", "delete_data")

each_module = pytest.mark.parametrize("name", MODULES)


def test_the_charts_have_the_library_and_the_common_schema() -> None:
    command = [sys.executable, pack.__file__, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@each_module
def test_a_role_has_all_files_of_the_form(name: str) -> None:
    assert [file for file in FILES if not (ROLES / name / file).is_file()] == []
    assert all(file.is_file() for file in full(name))


@each_module
def test_module_yml_has_known_keys_and_known_needs(name: str) -> None:
    document = module(name)
    assert {"title", "summary", "version", "ports"} <= document.keys() <= KEYS
    assert set(document.get("needs", [])) <= set(MODULES) - {name}
    for secret in document.get("secrets", []):
        assert secret.keys() == {"name", "data"}
        assert secret["name"].startswith("{name}-")
        assert all(source.keys() in ({"value"}, {"generate"}) for source in secret["data"].values())


@each_module
def test_a_role_has_the_variables_of_the_form(name: str) -> None:
    defaults, specs = read(ROLES / name / "defaults" / "main.yml"), read(ROLES / name / "meta" / "argument_specs.yml")
    readme = (ROLES / name / "README.md").read_text()
    assert specs["argument_specs"].keys() == {"main", "status", "info"}
    for entry in specs["argument_specs"].values():
        assert {option: each.get("default") for option, each in entry["options"].items()} == defaults
    assert {f"{name}_{variable}" for variable in VARIABLES} <= defaults.keys()
    assert defaults[f"{name}_name"] == name.replace("_", "-")
    assert [variable for variable in defaults if f"`{variable}`" not in readme] == []


@each_module
def test_every_value_is_described_and_has_a_default(name: str) -> None:
    document, values = schema(name), read(chart(name) / "values.yaml")
    assert document["additionalProperties"] is False
    assert document["properties"].keys() - {"library"} == values.keys()
    assert [key for key, each in document["properties"].items() if not each.get("description")] == []


@each_module
def test_default_and_full_values_fit_the_schema(name: str) -> None:
    validator = jsonschema.Draft7Validator(schema(name))
    validator.check_schema(validator.schema)
    defaults, all_full = read(chart(name) / "values.yaml"), [read(file) for file in full(name)]
    for values in ({}, *all_full):
        assert [error.message for error in validator.iter_errors(merged(defaults, values))] == []
    assert set().union(*all_full) == defaults.keys()


@each_module
def test_the_version_is_said_once(name: str) -> None:
    document, version = read(chart(name) / "Chart.yaml"), module(name)["version"]
    assert document["appVersion"] == version
    image = read(chart(name) / "values.yaml").get("image")
    assert image is None or image["tag"].startswith(version)


@pytest.mark.parametrize("name", ["model_sharing", "dataset_sharing"])
def test_a_sharing_api_starts_with_a_list_of_tokens_that_it_can_read(name: str, tmp_path: Path) -> None:
    tokens, signing = module(name)["secrets"]
    assert signing["data"] == {"signing.pem": {"generate": "ec_p256"}}
    (tmp_path / "tokens.json").write_text(tokens["data"]["tokens.json"]["value"])
    assert read_tokens(tmp_path / "tokens.json") == []
