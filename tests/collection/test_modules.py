"""From a domain's list of modules to releases, by the roles' data files."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _modules
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._images import images
from hypothesis import given
from hypothesis import strategies as st

PLACE = _modules.Place("mno-staging", "churn", "ES")


def release(item: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    return _modules.releases([item], PLACE, others)[0]


def refused(*items: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        _modules.releases(items, PLACE)
    return str(error.value)


def test_a_module_becomes_a_release_of_its_chart() -> None:
    made = release({"module": "model_sharing"})
    assert (made["name"], made["namespace"], made["state"]) == ("model-sharing", "churn", "present")
    assert made["chart"].endswith("roles/model_sharing/chart")


def test_meters_live_in_a_namespace_of_their_own() -> None:
    assert release({"module": "kepler"})["namespace"] == "churn-meters"


def test_a_given_secret_replaces_a_generated_one() -> None:
    made = release({"module": "postgres", "secrets": {"password": "a given one"}})
    (secret,) = made["secrets"]
    assert secret["name"] == "postgres-auth"
    assert secret["data"]["password"] == {"value": "a given one"}
    assert release({"module": "postgres"})["secrets"][0]["data"]["password"] == {"generate": 32}


def test_other_modules_go_by_the_names_that_the_domain_gives_them() -> None:
    names = {need["name"] for need in _modules.releases([{"module": "postgres", "name": "records"}], PLACE)}
    assert names == {"records"}
    pgadmin = release({"module": "pgadmin"}, {"module": "postgres", "name": "records"})
    assert "records" in str(pgadmin["defaults"])
    assert pgadmin["needs"] == [], "what is not in the list orders nothing"


def test_one_registry_for_all_images() -> None:
    place = _modules.Place("mno-staging", "churn", "ES", registry="mirror.example.net:5000")
    (made,) = _modules.releases([{"module": "postgres"}], place)
    assert made["defaults"]["global"] == {"imageRegistry": "mirror.example.net:5000"}


def test_a_wrong_list_is_told_with_the_nearest_right_word() -> None:
    assert "did you mean postgres?" in refused({"module": "postgress"})
    assert "did you mean values?" in refused({"module": "postgres", "valus": {}})
    assert "names no module" in refused({"name": "postgres"})
    assert "their keys are username, password" in refused({"module": "postgres", "secrets": {"pasword": "x"}})
    assert "there is no module ../keys" in refused({"module": "../keys"})


def test_one_of_a_list_keeps_what_the_domain_says_of_it() -> None:
    domain: list[dict[str, Any]] = [
        {"module": "postgres", "name": "records", "values": {"database": "x"}},
        {"module": "minio"},
    ]
    assert _modules.selected(domain, "postgres") == domain[:1]
    assert _modules.selected(domain, "records") == domain[:1]
    assert _modules.selected(domain, "grafana") == [{"module": "grafana"}]


@pytest.mark.parametrize("group", _modules.KINDS)
def test_every_kind_of_domain_has_a_list_of_known_modules(group: str) -> None:
    listed = _modules.of_kind([group])
    assert listed
    assert _modules.releases(listed, PLACE)
    assert _modules.of_kind(["somewhere"]) is None


@given(st.text(), st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(), max_size=3))
def test_only_known_words_in_braces_are_replaced(text: str, words: dict[str, str]) -> None:
    assert _modules.filled(text, {}) == text
    filled = _modules.filled({"key": [text, "{name}"]}, {"name": "postgres"})
    assert filled["key"][1] == "postgres"
    assert isinstance(_modules.filled(text, words), str)


def test_images_of_containers_and_of_what_programs_start_later() -> None:
    pod = {
        "initContainers": [{"name": "wait", "image": "registry.example.net/wait:1"}],
        "containers": [
            {
                "name": "api",
                "image": "registry.example.net/api:1@sha256:" + "0" * 64,
                "args": [
                    "--executor-image",
                    "registry.example.net/executor:2",
                    "--image=registry.example.net/x:3",
                    "-v",
                ],
                "env": [{"name": "DRIVER_IMAGE", "value": "registry.example.net/driver:4"}],
            }
        ],
    }
    deployment = {"kind": "Deployment", "spec": {"template": {"spec": pod}}}
    assert images([deployment]) == {
        "registry.example.net/wait:1",
        "registry.example.net/api:1@sha256:" + "0" * 64,
        "registry.example.net/executor:2",
        "registry.example.net/x:3",
        "registry.example.net/driver:4",
    }
