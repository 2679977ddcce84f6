"""The commands as people type them. What needs a cluster is in tests/cluster/test_command_line.py."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest
import yaml

from hxMLOps import catalogue, results
from hxMLOps.cli import main
from hxMLOps.play import Outcome

CONTEXTS = ("software-vendor", "kind-mno-staging", "mno-production")
THREE = [
    *("-d", "software-vendor,location=DE,party=acme"),
    *("-d", "mno-staging,location=es,namespace=staging"),
    *("-d", "mno-production,location=ES"),
]
ONE = ["-d", "mno-staging,location=ES"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration is to be; the kubeconfig has three contexts of servers that do not answer."""
    kubeconfig = tmp_path / "kubeconfig"
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    for name in CONTEXTS:
        document["clusters"].append({"name": name, "cluster": {"server": "https://127.0.0.1:1"}})
        document["users"].append({"name": name, "user": {"token": f"token-of-{name}"}})
        document["contexts"].append({"name": name, "context": {"cluster": name, "user": name}})
    kubeconfig.write_text(yaml.safe_dump(document))
    path = tmp_path / "config" / "inventory.yml"
    for name in [name for name in os.environ if name.startswith(("K8S_AUTH_", "ANSIBLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("HXMLOPS_CONFIG", str(path))
    monkeypatch.chdir(tmp_path)
    return path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hx(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; its exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return code, told.out, told.err

    return run


def process(*arguments: str, folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with nobody at a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "hxMLOps", *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# -- help and mistakes ------------------------------------------------------------------------------------------------


def test_the_version_and_the_help_with_its_exit_codes(hx: Command) -> None:
    galaxy = catalogue.ROLES.parent / "galaxy.yml"
    assert hx("--version") == (0, f"hxMLOps {yaml.safe_load(galaxy.read_text())['version']}\n", "")
    code, told, _ = hx("--help")
    assert code == 0
    assert all(word in told for word in ("init", "check", "component", "link", "stage", "Exit codes"))
    code, told, _ = hx("component", "storage", "create", "--help")
    assert code == 0
    assert "postgres, minio, pgadmin, timescale" in told


def test_a_command_without_its_subcommand_shows_its_help(hx: Command) -> None:
    code, told, _ = hx("component")
    assert code == 2
    assert told.count("serving_platform") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("component storag create postgres", "Did you mean 'storage'?"),
        ("component storage creat postgres", "Did you mean 'create'?"),
        ("component storage create", "Missing argument 'MODULE'"),
        ("component storage create postgress", "did you mean postgres?"),
        ("component storage create grafana", "grafana is not in component storage, but in component monitoring"),
        ("component monitoring status x", "component monitoring has no x: known: grafana"),
        ("link api info datasharing", "did you mean datasetsharing?"),
        ("stage model create trainin", "did you mean training?"),
        ("component list-values storrage", "did you mean storage?"),
        ("component storage create postgres --file nowhere.yaml", "--file nowhere.yaml: No such file or directory"),
        ("component storage create postgres --domian x", "No such option"),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_wrong_word_gets_the_nearest_right_one(hx: Command, line: str, words: str) -> None:
    code, told, wrong = hx(*line.split())
    assert (code, told) == (2, "")
    assert words in wrong
    assert wrong.count("\n") == 1


@pytest.mark.parametrize("name", ["kubeflowPipeline", "kubeflowpipeline", "kubeflow_pipelines", "kubeflow-pipelines"])
def test_a_module_goes_by_its_name_or_its_roles(name: str) -> None:
    assert catalogue.find("component", "ml_toolkit", name).role == "kubeflow_pipelines"


@pytest.mark.parametrize("kind", catalogue.CATALOGUE)
def test_each_name_has_its_role(kind: str) -> None:
    for module in catalogue.modules(kind):
        assert module.readme.is_file()
        assert module.values.is_file() or kind == "stage"
    for playbook in {*catalogue.PLAYBOOK_OF_STAGE.values(), "module", "check", "energy_report"}:
        assert (catalogue.PROJECT / "playbooks" / f"{playbook}.yml").is_file()


@pytest.mark.parametrize("action", ["create", "delete", "status"])
def test_a_stage_is_no_release_and_says_what_runs_it(hx: Command, action: str) -> None:
    code, _, wrong = hx("stage", "model", action, "training", "--domain", "software-vendor", "--file", "x.yaml")
    assert code == 2
    assert "playbooks/build_model.yml runs it with -e hxmlops_workflow=FILE" in wrong


def test_a_stages_info_is_its_readme(hx: Command) -> None:
    code, told, _ = hx("stage", "data", "info", "encryption")
    assert code == 0
    assert told.startswith("# encryption\n")
    assert "playbooks/release_dataset.yml" in told


def test_values_are_listed_and_printed(hx: Command) -> None:
    code, told, _ = hx("component", "list-values")
    assert code == 0
    assert len(told.splitlines()) == 1 + len(list(catalogue.modules("component")))
    code, told, _ = hx("component", "list-values", "storage", "postgres")
    assert code == 0
    assert yaml.safe_load(told)["image"]["repository"] == "library/postgres"


# -- init -------------------------------------------------------------------------------------------------------------


def test_a_new_configuration_is_an_inventory(hx: Command, config: Path) -> None:
    code, told, wrong = hx("init", "new_config", *THREE, "--default", "mno-staging")
    assert (code, wrong) == (0, "")
    assert told.startswith(f"Wrote {config}\n")
    listed = subprocess.run(
        [Path(sys.executable).parent / "ansible-inventory", "-i", config, "--list"], capture_output=True, check=True
    )
    inventory = yaml.safe_load(listed.stdout)
    assert inventory["mno_staging"]["hosts"] == ["mno-staging"]
    staging = inventory["_meta"]["hostvars"]["mno-staging"]
    assert {
        name: staging[f"hxmlops_{name}"] for name in ("context", "namespace", "party", "location", "kubeconfig")
    } == {
        "context": "kind-mno-staging",
        "namespace": "staging",
        "party": "operator",
        "location": "ES",
        "kubeconfig": os.environ["KUBECONFIG"],
    }
    assert staging["hxmlops_default_domain"] == "mno-staging"
    assert inventory["_meta"]["hostvars"]["software-vendor"]["hxmlops_party"] == "acme"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


def test_the_same_again_changes_nothing_and_another_needs_force(hx: Command, config: Path) -> None:
    hx("init", "new_config", *THREE)
    hx("init", "set_default_domain", "mno-production")
    config.write_text(config.read_text() + "# mine\n")
    before = config.read_bytes(), config.stat().st_mtime_ns
    code, told, _ = hx("init", "new_config", *THREE)
    assert code == 0
    assert told.startswith("Unchanged")
    code, _, wrong = hx("init", "new_config", *ONE)
    assert code == 3
    assert "--force replaces it" in wrong
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before
    assert hx("init", "new_config", *ONE, "--force")[0] == 0
    assert config.with_name("inventory.yml~").read_bytes() == before[0]
    assert [path.name for path in config.parent.iterdir() if path.name.startswith(".")] == []


def test_without_a_terminal_the_options_are_named(config: Path) -> None:
    done = process("init", "new_config", folder=config.parent.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--domain NAME,location=COUNTRY" in done.stderr
    assert ", ".join(("software-vendor", "kind-mno-staging", "mno-production")) in done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("mno-staging", "give location="),
        ("mno-staging,location=Spain", "'Spain' is no location"),
        ("mno-staging,location=ES,kind=staging", "did you mean mno-staging?"),
        ("Staging,location=ES,context=mno-production,kind=mno-staging", "'Staging' is no name"),
        ("lab,location=ES,context=mno-prodution", "did you mean mno-production?"),
        ("lab,location=ES,context=software-vendor,colour=red", "'colour=red' is none of context="),
        ("all,location=ES,context=mno-production", "'all' is no name"),
    ],
)
def test_a_wrong_domain_is_told_and_nothing_is_written(hx: Command, config: Path, option: str, words: str) -> None:
    code, _, wrong = hx("init", "new_config", "--domain", option)
    assert code == 2
    assert words in wrong
    assert not config.exists()


@pytest.mark.usefixtures("config")
def test_a_missing_kubeconfig_is_a_matter_of_configuration(hx: Command) -> None:
    code, _, wrong = hx("init", "new_config", *ONE, "--kubeconfig", "nowhere")
    assert code == 3
    assert "no kubeconfig at" in wrong


def test_on_a_terminal_it_asks(config: Path) -> None:
    child = pexpect.spawn(sys.executable, ["-m", "hxMLOps", "init", "new_config"], encoding="utf-8", timeout=20)
    for question, answer in (
        ("names .all.:", "9"),
        ("there is no context 9", "2, mno-production"),
        ("Name of the domain .mno-staging.:", ""),
        ("Kind .*.mno-staging.:", "staging"),
        ("did you mean mno-staging.*Kind", ""),
        ("Party", ""),
        ("Location", "Spain"),
        ("is no location.*Location", "es"),
        ("Namespace .mno-staging.:", ""),
        ("Name of the domain .mno-production.:", "live"),
        ("Kind", ""),
        ("Party", "acme"),
        ("Location", "DE"),
        ("Namespace .live.:", "models"),
        ("Default domain", "live"),
    ):
        child.expect(question)
        child.sendline(answer)
    child.expect("Wrote")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    groups = yaml.safe_load(config.read_text())["all"]
    assert groups["vars"]["hxmlops_default_domain"] == "live"
    assert groups["children"]["mno_production"]["hosts"]["live"] == {
        "hxmlops_context": "mno-production",
        "hxmlops_namespace": "models",
        "hxmlops_party": "acme",
        "hxmlops_location": "DE",
    }


def test_the_default_domain_is_one_line_of_the_inventory(hx: Command, config: Path) -> None:
    hx("init", "new_config", *THREE)
    config.write_text(config.read_text().replace("all:\n", "all: # ours\n", 1) + "# the end\n")
    before = config.read_text()
    config.write_text(before.replace("all: # ours\n", "all:\n"))
    for name in ("mno-staging", "mno-production"):
        assert hx("init", "set_default_domain", name)[:2] == (0, f"The default domain is {name}\n")
        assert config.read_text().count("hxmlops_default_domain") == 1
        assert config.read_text().endswith("# the end\n")
    assert hx("init", "set_default_domain", "mno-production")[1].startswith("Unchanged")
    code, _, wrong = hx("init", "set_default_domain", "mno-producton")
    assert code == 2
    assert "did you mean mno-production?" in wrong
    assert "default" in next(line for line in hx("init", "show_config")[1].splitlines() if "mno-production" in line)


# -- which domains, and the line of ansible-playbook ------------------------------------------------------------------


@pytest.mark.usefixtures("config")
def test_the_domain_is_the_one_asked_for_the_default_or_the_only_one(hx: Command) -> None:
    line = ("component", "storage", "create", "postgres", "--show")
    code, _, wrong = hx(*line)
    assert code == 3
    assert "init new_config" in wrong
    hx("init", "new_config", *ONE)
    assert "--limit mno-staging " in hx(*line)[1]
    hx("init", "new_config", *THREE, "--force")
    code, _, wrong = hx(*line)
    assert code == 2
    assert "software-vendor, mno-staging, mno-production" in wrong
    hx("init", "set_default_domain", "mno-production")
    assert "--limit mno-production " in hx(*line)[1]
    assert "--limit mno-staging,software-vendor " in hx(*line, "-d", "mno-staging", "-d", "software-vendor")[1]
    assert "--limit" not in hx(*line, "-d", "all")[1]
    code, _, wrong = hx(*line, "-d", "mno-stagin")
    assert code == 2
    assert "did you mean mno-staging?" in wrong


@pytest.mark.usefixtures("config")
def test_the_line_shown_runs_as_it_is_from_any_folder(hx: Command, tmp_path: Path) -> None:
    hx("init", "new_config", *THREE)
    values = tmp_path / "my values.yaml"
    values.write_text("{}\n")
    code, told, _ = hx(
        *("component", "storage", "create", "postgres", "-d", "mno-staging"),
        "-f",
        "my values.yaml",
        "--show",
        "--check",
    )
    assert code == 0
    assert told.count("\n") == 1
    words = shlex.split(told)
    assert words[-6:] == [
        *("-e", "hxmlops_module=postgres"),
        *("-e", "hxmlops_action=create"),
        *("-e", f"hxmlops_values_file={values}"),
    ]
    done = subprocess.run(f"{told.strip()} --list-hosts", shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.returncode == 0
    assert "mno-staging" in done.stdout
    assert "mno-production" not in done.stdout


@pytest.mark.parametrize("text", ["all: [", "[]", "all: {hosts: {}}", "all: {children: {mno_staging: x}}"])
def test_a_broken_inventory_is_told_in_a_line(hx: Command, config: Path, text: str) -> None:
    config.parent.mkdir()
    config.write_text(text)
    code, _, wrong = hx("init", "show_config")
    assert code == 3
    assert str(config) in wrong
    assert wrong.count("\n") == 1


@pytest.mark.usefixtures("config")
def test_any_inventory_is_a_configuration(hx: Command) -> None:
    code, told, _ = hx("init", "show_config", "--config", str(catalogue.PROJECT / "inventories" / "local"))
    assert code == 0
    assert [line.split()[:3] for line in told.splitlines()[2:]] == [
        ["software-vendor", "software-vendor", "vendor"],
        ["mno-staging", "mno-staging", "operator"],
        ["mno-production", "mno-production", "operator"],
    ]


@pytest.mark.usefixtures("config")
def test_a_file_of_the_inventory_plugin_is_a_configuration(hx: Command, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig.yml"
    rule = {"match": "mno-production", "name": "live", "groups": ["mno_production"], "party": "acme", "location": "DE"}
    file.write_text(
        yaml.safe_dump({"plugin": "hxmlops.mlops.kubeconfig", "kubeconfigs": ["kubeconfig"], "rules": [rule]})
    )
    code, told, _ = hx("init", "show_config", "--config", str(file))
    assert code == 0
    assert told.splitlines()[2].split()[:5] == ["live", "mno-production", "acme", "DE", "mno-production"]
    file.write_text("plugin: hxmlops.mlops.nothing\n")
    code, _, wrong = hx("init", "show_config", "--config", str(file))
    assert code == 3
    assert wrong.startswith(f"hxMLOps: {file} is no inventory with hosts: ")


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("config")
def test_info_needs_no_cluster_and_prints_a_file_to_fill_in(tmp_path: Path) -> None:
    assert main(["init", "new_config", *ONE]) == 0
    with tempfile.TemporaryDirectory() as here:  # a short path: Ansible's sockets lie below it
        done = process("component", "storage", "info", "minio", folder=tmp_path, env={"TMPDIR": here})
        assert (done.returncode, done.stderr) == (0, "")
        assert list(Path(here).iterdir()) == []
    assert done.stdout.startswith("# ")
    chart = catalogue.find("component", "storage", "minio").values
    assert yaml.safe_load(done.stdout) == yaml.safe_load(chart.read_text())


@pytest.mark.usefixtures("config")
def test_a_server_that_does_not_answer_is_told_in_a_line(tmp_path: Path) -> None:
    assert main(["init", "new_config", *THREE]) == 0
    done = process("component", "storage", "status", "postgres", "-d", "mno-staging", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    header, row = done.stdout.splitlines()
    assert header.split() == ["domain", "status", "reason"]
    assert row.startswith("mno-staging  failed  ")
    assert "127.0.0.1:1" in row
    done = process("check", "connection", folder=tmp_path)
    assert done.returncode == 3
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["software-vendor", "no"],
        ["mno-staging", "no"],
        ["mno-production", "no"],
    ]
    assert done.stderr.count("127.0.0.1:1") >= 3
    assert "token-of" not in done.stdout + done.stderr


# -- results ----------------------------------------------------------------------------------------------------------


def release(**more: Any) -> dict[str, Any]:
    usual = {"name": "postgres", "action": "install", "revision": 1, "changed": True, "failed": False, "reason": ""}
    return {**usual, "seconds": 2.04, **more}


def test_a_row_for_each_release_in_the_domains_order(capsys: pytest.CaptureFixture[str]) -> None:
    stuck = release(
        action="refused", changed=False, failed=True, reason="run again with recover: true (hxmlops_recover=true)"
    )
    outcome = Outcome(
        code=2,
        results=[
            ("b", {"failed": False, "releases": [release()]}),
            ("c", {"failed": True, "msg": "there is\nno namespace c"}),
            ("a", {"failed": True, "releases": [stuck]}),
        ],
    )
    assert results.changes(outcome, ["a", "b", "c"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "domain  release   action     revision  seconds  reason",
        "a       postgres  failed            1      2.0  run again with --recover",
        "b       postgres  installed         1      2.0",
        "c                 failed                        there is no namespace c",
    ]


def test_what_would_be_done_is_not_told_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    gone = release(action="uninstall", revision=3)
    kept = release(action="none", changed=False, revision=3)
    outcome = Outcome(
        results=[("a", {"failed": False, "releases": [gone]}), ("b", {"failed": False, "releases": [kept]})]
    )
    assert results.foreseen(outcome, ["a", "b"]) == 0
    told = capsys.readouterr().out
    assert "would be deleted" in told
    assert "unchanged" in told


def test_what_ansible_itself_says_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert results.changes(Outcome(code=4, errors=["the playbook is no YAML"]), ["a"]) == 1
    assert capsys.readouterr() == ("", "hxMLOps: the playbook is no YAML\n")
