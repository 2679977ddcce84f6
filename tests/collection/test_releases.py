"""What is wanted, before any cluster is asked: releases, their order, values, digests."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import Record
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import NAME, PlanError, merged, order, parse
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._secrets import value_of
from hypothesis import given
from hypothesis import strategies as st

from hxmlops_evidence.keys import key_id, load_signing_key


def chart(folder: Path, name: str = "web") -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 1.0.0\n")
    return folder / name


def refused(folder: Path, *items: dict[str, Any]) -> str:
    with pytest.raises(PlanError) as error:
        parse(items, "churn", folder)
    return str(error.value)


def test_a_list_becomes_releases_with_paths_and_values_resolved(tmp_path: Path) -> None:
    chart(tmp_path)
    (tmp_path / "big.yaml").write_text("replicas: 3\nlimits: {cpu: 2, memory: 4Gi}\n")
    item = {"name": "web", "chart": "web", "values_files": ["big.yaml"], "values": {"limits": {"cpu": 1}}}
    (release,) = parse([item], "churn", tmp_path)
    assert release.namespace == "churn"
    assert release.chart == str(tmp_path / "web")
    assert release.values == {"replicas": 3, "limits": {"cpu": 1, "memory": "4Gi"}}


def test_what_cannot_be_is_told_before_anything_runs(tmp_path: Path) -> None:
    chart(tmp_path)
    web = {"name": "web", "chart": "web"}
    database = {"name": "database", "chart": "web"}
    assert "did you mean database?" in refused(tmp_path, {**web, "needs": ["databse"]}, database)
    assert "stands twice" in refused(tmp_path, web, web)
    circle = refused(tmp_path, {**web, "needs": ["database"]}, {**database, "needs": ["web"]})
    assert "in a circle: " in circle
    assert "web -> database" in circle or "database -> web" in circle
    assert "which is to be absent" in refused(tmp_path, {**web, "needs": ["database"]}, {**database, "state": "absent"})
    assert "no chart at" in refused(tmp_path, {"name": "web", "chart": "wbe"})
    assert "no chart is given" in refused(tmp_path, {"name": "web"})
    assert "needs a version" in refused(tmp_path, {"name": "web", "chart": "oci://example.net/web"})
    assert "lower-case" in refused(tmp_path, {"name": "Web_1", "chart": "web"})
    assert "needs the revision" in refused(tmp_path, {"name": "web", "state": "rolled_back"})
    secret = {"name": "s", "data": {"password": {"genrate": 8}}}
    assert "password takes value, default or generate" in refused(tmp_path, {**web, "secrets": [secret]})
    for wrong in ("rsa", "1.5", -8):
        secret = {"name": "s", "data": {"key": {"generate": wrong}}}
        told = refused(tmp_path, {**web, "secrets": [secret]})
        assert told == "release web: Secret s: key: generate takes a number of characters, or ec_p256"


def test_a_generated_secret_is_another_each_time_and_of_its_kind(tmp_path: Path) -> None:
    data = {"password": {"generate": 32}, "signing.pem": {"generate": "ec_p256"}, "user": {"default": "ana"}}
    item = {"name": "web", "chart": str(chart(tmp_path)), "secrets": [{"name": "web-auth", "data": data}]}
    (release,) = parse([item], "churn", tmp_path)
    keys = release.secrets[0].keys
    one, other = ({name: value_of(source) for name, source in keys.items()} for _each in range(2))
    assert one["user"] == other["user"] == "ana"
    assert re.fullmatch(r"[A-Za-z0-9]{32}", one["password"])
    assert one["password"] != other["password"]
    fingerprints = set()
    for made in (one, other):
        file = tmp_path / "signing.pem"
        file.write_text(made["signing.pem"])
        file.chmod(0o600)
        fingerprints.add(key_id(load_signing_key(file).public_key()))  # as the server reads it
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3\n", "values.yaml:2:"),
        ("- 1\n", "holds no mapping but a list"),
        ("a: b: c\n", "values.yaml:1:5"),
        ("\x00", "values.yaml"),
    ],
)
def test_a_broken_values_file_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    chart(tmp_path)
    (tmp_path / "values.yaml").write_text(text)
    assert words in refused(tmp_path, {"name": "web", "chart": "web", "values_files": ["values.yaml"]})


def test_a_missing_values_file_is_named(tmp_path: Path) -> None:
    chart(tmp_path)
    told = refused(tmp_path, {"name": "web", "chart": "web", "values_files": ["values.yaml"]})
    assert told == f"release web: values file {tmp_path / 'values.yaml'}: No such file or directory"


def test_the_digest_follows_chart_and_values_and_nothing_else(tmp_path: Path) -> None:
    folder = chart(tmp_path)

    def plan(**changes: Any) -> str:
        (release,) = parse([{"name": "web", "chart": "web", "values": {"a": 1, "b": 2}, **changes}], "churn", tmp_path)
        return release.plan({})

    first = plan()
    assert plan(values={"b": 2, "a": 1}) == first
    assert plan(values={"a": 1, "b": 3}) != first
    (folder / "templates").mkdir()
    (folder / "templates" / "one.yaml").write_text("kind: ConfigMap\n")
    assert plan() != first


def test_a_plan_belongs_to_one_revision(tmp_path: Path) -> None:
    """Helm hands labels on to the next revision: a hand-made upgrade must not look like ours."""
    chart(tmp_path)
    (release,) = parse([{"name": "web", "chart": "web"}], "churn", tmp_path)
    plan = release.plan({})
    labels = {"hxmlops.io/plan": f"{plan}.3", "hxmlops.io/ready": "3"}
    ours = Record("web", "churn", 3, "deployed", labels)
    inherited = Record("web", "churn", 4, "deployed", labels)
    assert ours.has_plan(plan)
    assert ours.seen_ready
    assert not inherited.has_plan(plan)
    assert not inherited.seen_ready
    assert len(labels["hxmlops.io/plan"]) + 5 <= 63, "a label's value has 63 characters at most"


names = st.lists(st.from_regex(NAME, fullmatch=True), unique=True, min_size=1, max_size=12)


@given(names=names, seed=st.integers(0, 2**32), absent=st.booleans())
def test_needs_come_first_and_go_last_whatever_the_graph(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int, absent: bool
) -> None:
    folder = chart(tmp_path_factory.getbasetemp()).parent
    chance = random.Random(seed)  # noqa: S311 - a test's graph
    items = [
        {
            "name": name,
            "chart": "web",
            "state": "absent" if absent else "present",
            "needs": [other for other in names[:number] if chance.random() < 0.3],
        }
        for number, name in enumerate(names)
    ]
    chance.shuffle(items)
    releases = parse(items, "churn", folder)
    sorter = order(releases)
    done: list[str] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        done += ready
        sorter.done(*ready)
    assert sorted(done) == sorted(names)
    for release in releases:
        for need in release.needs:
            first, last = (release.name, need) if absent else (need, release.name)
            assert done.index(first) < done.index(last)


tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=10,
)
mapping = st.dictionaries(st.sampled_from("abc"), tree, max_size=3)


@given(low=mapping, middle=mapping, high=mapping)
def test_values_merge_as_layers_do(low: dict[str, Any], middle: dict[str, Any], high: dict[str, Any]) -> None:
    assert merged(low, {}) == low
    assert merged({}, high) == high
    assert merged(low, low) == low
    both = merged(low, high)
    for key, value in high.items():
        if not isinstance(value, dict):
            assert both[key] == value, "the upper layer wins"
    assert all(key in both for key in low)
    assert merged(merged(low, middle), middle) == merged(low, middle)
