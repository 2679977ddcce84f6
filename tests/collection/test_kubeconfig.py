"""Kubeconfigs: which API server and who asks; and the inventory plugin that makes domains of contexts."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hxmlops.mlops.plugins.inventory.kubeconfig import InventoryModule, domains, rules_of, sources
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import (
    OPTIONS,
    Access,
    KubeconfigError,
    access,
    as_kubeconfig,
    from_kubeconfig,
    load,
)
from hypothesis import given
from hypothesis import strategies as st

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the kubeconfig of whoever runs it."""
    for name in ("KUBECONFIG", *(variable for _, variable in OPTIONS.values())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    (tmp_path / "nobody").mkdir()


def kubeconfig(*names: str, **user: Any) -> dict[str, Any]:
    """A kubeconfig with a context, cluster and user of each name."""
    return {
        "current-context": names[0],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443"}} for name in names],
        "users": [{"name": name, "user": user or {"token": f"token-of-{name}"}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }


def holder(token: str) -> dict[str, str]:
    """A user of a kubeconfig."""
    return {"token": token}


def bearer(options: dict[str, Any]) -> Any:
    """The token of an access."""
    return access(options).token


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


# -- access ----------------------------------------------------------------------------------------------------------


def test_the_current_context_is_taken_or_the_named_one(tmp_path: Path) -> None:
    path = written(tmp_path / "config", kubeconfig("a", "b"))
    assert bearer({"kubeconfig": str(path)}) == "token-of-a"
    found = access({"kubeconfig": str(path), "context": "b"})
    assert (found.server, found.token, found.context) == ("https://b.example:6443", "token-of-b", "b")
    assert found.files == (str(path),)
    assert access({"kubeconfig": kubeconfig("c")}).server == "https://c.example:6443", "its content as a mapping"


def test_options_win_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "config", kubeconfig("a", "b"))
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(path))
    monkeypatch.setenv("K8S_AUTH_CONTEXT", "b")
    assert access({}).context == "b"
    assert access({"context": "a"}).context == "a"
    direct = access({"host": "https://direct.example", "api_key": "key"})
    assert (direct.server, direct.token) == ("https://direct.example", "key")
    # AWX's credential for Kubernetes gives these
    monkeypatch.delenv("K8S_AUTH_CONTEXT")
    for name, value in {"HOST": "https://awx.example", "API_KEY": "key", "VERIFY_SSL": "False"}.items():
        monkeypatch.setenv(f"K8S_AUTH_{name}", value)
    assert access({}).server == "https://awx.example"
    assert not access({}).verify
    assert access({"kubeconfig": str(path)}).context == "a"


def test_of_several_files_the_first_to_name_a_thing_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = written(tmp_path / "one", kubeconfig("a", **holder("first")))
    two = written(tmp_path / "two", kubeconfig("b", "a", **holder("second")))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (one, tmp_path / "missing", two))))
    assert bearer({}) == "first"
    assert bearer({"context": "b"}) == "second"


def test_paths_in_a_kubeconfig_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "home" / "certificates" / "client.pem", "certificate")
    written(tmp_path / "home" / "key.pem", "key")
    written(tmp_path / "home" / "token", "from a file\n")
    user = {"client-certificate": "certificates/client.pem", "client-key": "key.pem", "tokenFile": "token"}
    written(tmp_path / "home" / "config", kubeconfig("a", **user))
    monkeypatch.chdir(tmp_path)
    found = access({"kubeconfig": "home/config"})
    assert (found.certificate, found.key, found.token) == ("certificate", "key", "from a file")
    assert found.files == ("home/config",)


def test_base64_over_several_lines_counts() -> None:
    pem = "-----BEGIN CERTIFICATE-----\n" * 8
    lines = base64.encodebytes(pem.encode()).decode()
    assert access({"kubeconfig": kubeconfig("a", **{"client-certificate-data": lines})}).certificate == pem


def test_an_exec_plugin_gives_the_credentials(tmp_path: Path) -> None:
    told = {"status": {"token": "from the plugin", "clientCertificateData": "certificate", "clientKeyData": "key"}}
    program = written(
        tmp_path / "bin" / "login", f"#!/bin/sh\ntest -n \"$KUBERNETES_EXEC_INFO\" && echo '{json.dumps(told)}'"
    )
    program.chmod(0o700)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "bin/login", "args": ["now"]}
    path = written(tmp_path / "config", kubeconfig("a", exec=plugin))
    found = access({"kubeconfig": str(path)})
    assert (found.token, found.certificate, found.key) == ("from the plugin", "certificate", "key")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "is no YAML"),
        ("just text", "is no kubeconfig"),
        ({"contexts": {"a": {}}}, "contexts must be a list of {name"),
        ({"users": [{"name": "a", "user": "me"}]}, "users must be a list of {name"),
        ({**kubeconfig("a"), "current-context": None}, "has no current context: set hxmlops_context"),
        ({**kubeconfig("a", "b"), "current-context": "c"}, "has no context c: it has a, b"),
        ({**kubeconfig("a"), "clusters": []}, "names cluster a, which is not there"),
        (kubeconfig("a", **{"client-key-data": "%"}), "client-key-data is no base64"),
        (kubeconfig("a", **{"client-key": "missing.pem"}), "missing.pem: No such file"),
        (
            kubeconfig("a", exec={"command": "hx-login", "apiVersion": "v1", "installHint": "get it"}),
            "installed here: get it",
        ),
        (kubeconfig("a", exec={"args": []}), "exec needs command"),
        (kubeconfig("a", exec={"command": "false", "apiVersion": "v1"}), "exec plugin false:"),
        (kubeconfig("a", exec={"command": "true", "apiVersion": "v1"}), "gave no credentials"),
        (kubeconfig("a", **{"auth-provider": {"name": "gcp"}}), "auth-provider was removed"),
    ],
)
def test_what_is_wrong_with_a_kubeconfig_is_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    path = written(tmp_path / "config", content)
    with pytest.raises(KubeconfigError, match=re.escape(words)) as caught:
        access({"kubeconfig": str(path)})
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match=re.escape("no kubeconfig at ~/.kube/config: set hxmlops_kubeconfig")):
        access({})
    with pytest.raises(KubeconfigError, match="without api_key or client_cert"):
        access({"host": "https://a.example"})
    binary = tmp_path / "certificate.der"
    binary.write_bytes(b"\x30\x82\xff")
    with pytest.raises(KubeconfigError, match="is no text: PEM is needed"):
        access({"host": "https://a.example", "api_key": "key", "ca_cert": str(binary)})


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=12)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ENTRIES = JUNK | st.lists(
    st.dictionaries(st.sampled_from(["name", "cluster", "user", "context", "exec"]), JUNK, max_size=3), max_size=3
)


@given(st.dictionaries(st.sampled_from(["clusters", "users", "contexts", "current-context"]), ENTRIES), TEXT)
def test_a_kubeconfig_of_any_shape_is_read_or_refused(document: dict[str, Any], context: str) -> None:
    names = [context]
    with contextlib.suppress(KubeconfigError):
        names += load(document)[0]["contexts"]
    for name in names:
        with contextlib.suppress(KubeconfigError):
            assert from_kubeconfig(document, name).context == name


@given(
    st.builds(
        Access,
        where=st.just(""),
        server=st.just("https://a.example:6443"),
        ca=st.none() | TEXT,
        verify=st.just(True),
        tls_server_name=st.none() | TEXT,
        token=st.none() | TEXT,
        certificate=TEXT,
        key=TEXT,
        basic=st.none() | st.tuples(TEXT.filter(lambda name: ":" not in name), TEXT).map(":".join),
        proxy=st.none() | st.just("http://proxy.example:3128"),
        impersonate=st.none() | TEXT,
    )
)
def test_an_access_survives_being_written_as_a_kubeconfig(found: Access) -> None:
    again = access({"kubeconfig": as_kubeconfig(found, "mlops")})
    for name in ("server", "ca", "tls_server_name", "token", "certificate", "key", "basic", "proxy", "impersonate"):
        assert getattr(again, name) == getattr(found, name), name
    assert again.namespace == "mlops"


# -- what is no API server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "server", ["https://", "ftp://a.example", "https://a.example:port", "https://[::1", "a.example:0"]
)
def test_an_address_that_is_none_is_said(server: str) -> None:
    with pytest.raises(KubeError, match="is no API server's address: https://HOST:PORT is needed"):
        Kube(Access(where="context a", server=server))


class Page(http.server.BaseHTTPRequestHandler):
    """A web server, such as the login page of a proxy."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}" if self.path.startswith("/json") else b"<html>Sign in</html>")

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def page() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_page_is_no_api_server(page: str) -> None:
    for server in (page, f"{page}/json"):
        with pytest.raises(KubeError, match="answers, but is no API server: mend the address"):
            Kube(Access(where="context a", server=server)).version()


# -- the inventory plugin ---------------------------------------------------------------------------------------------


def inventory(folder: Path, config: Any, *options: str) -> tuple[str, str]:
    """What ansible-inventory prints and complains about for a configuration."""
    path = written(folder / "kubeconfig.yml", config)
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-inventory", "-i", path, *(options or ["--graph"])],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "2000"},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout, done.stderr


def hosts(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Domains by name, where rules hold no templates."""
    given = sources(config.get("kubeconfigs", []), folder)
    return {domain.name: domain for domain in domains(rules_of(config["rules"]), given, lambda text, _: text)}


def test_three_domains_from_one_file(tmp_path: Path) -> None:
    names = ("kind-software-vendor", "kind-mno-staging", "kind-mno-production", "minikube")
    written(tmp_path / "config", kubeconfig(*names))
    config = {
        "plugin": "hxmlops.mlops.kubeconfig",
        "kubeconfigs": ["config"],
        "rules": [
            {"match": "kind-soft*", "name": "software-vendor", "groups": ["software_vendors"], "party": "vendor"},
            {
                "regex": "kind-(?P<domain>mno-(?P<kind>.*))",
                "name": "{{ domain }}",
                "groups": ["mno_{{ kind }}", "operator"],
                "party": "operator",
                "location": "ES",
                "namespace": "ml-{{ kind }}",
                "variables": {"hxmlops_drift": "report", "later": "{{ hxmlops_context }}"},
            },
        ],
    }
    printed, complaints = inventory(tmp_path, config)
    assert not complaints
    assert set(re.findall(r"--@?([\w-]+)", printed)) == {
        "ungrouped", "software_vendors", "mno_staging", "mno_production", "operator",
        "software-vendor", "mno-staging", "mno-production",
    }  # fmt: skip
    printed, _ = inventory(tmp_path, config, "--list")
    listed = json.loads(re.sub(r'\{\s*"__ansible_unsafe": ("[^"]*")\s*\}', r"\1", printed))
    assert sorted(listed["operator"]["hosts"]) == ["mno-production", "mno-staging"]
    variables = listed["_meta"]["hostvars"]["mno-staging"]
    assert variables == {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "hxmlops_context": "kind-mno-staging",
        "hxmlops_drift": "report",
        "hxmlops_kubeconfig": str(tmp_path / "config"),
        "hxmlops_location": "ES",
        "hxmlops_namespace": "ml-staging",
        "hxmlops_party": "operator",
        "hxmlops_runtime": "kubernetes",
        "later": "{{ hxmlops_context }}",
    }
    assert "token-of" not in printed


def test_thirty_domains_from_a_folder_of_files_whose_contexts_have_one_name(tmp_path: Path) -> None:
    for number in range(30):
        written(tmp_path / "clusters" / f"{'es' if number % 2 else 'de'}-{number:02}.yaml", kubeconfig("default"))
    config = {
        "plugin": "hxmlops.mlops.kubeconfig",
        "kubeconfigs": ["clusters/*.yaml"],
        "rules": [
            {"file": "es-*", "name": "{{ file }}", "groups": ["mno_staging"], "location": "{{ file[:2] | upper }}"},
            {"name": "{{ file }}", "groups": ["mno_production"]},
        ],
    }
    printed, complaints = inventory(tmp_path, config, "--list")
    assert not complaints
    found = json.loads(printed)
    assert len(found["mno_staging"]["hosts"]) == len(found["mno_production"]["hosts"]) == 15
    assert found["_meta"]["hostvars"]["es-01"]["hxmlops_location"] == {"__ansible_unsafe": "ES"}


def test_the_example_inventories_show_three_domains(tmp_path: Path) -> None:
    names = ("software-vendor", "mno-staging", "mno-production")
    config = written(tmp_path / "config", kubeconfig(*(f"kind-{name}" for name in names)))
    for folder in ("kind", "example"):
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-inventory", "-i", PROJECT / "inventories" / folder, "--list"],
            cwd=PROJECT,
            env={**os.environ, "KUBECONFIG": str(config), "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        found = json.loads(done.stdout)
        for group, name in zip(("software_vendors", "mno_staging", "mno_production"), names, strict=True):
            assert found[group]["hosts"] == [name]
            assert found["_meta"]["hostvars"][name]["hxmlops_party"] in ("vendor", "operator")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kubeconfig": []}, "has the unknown key kubeconfig: did you mean kubeconfigs?"),
        ({"rules": [{"match": "a", "group": ["x"]}]}, "rule 1 has the unknown key group: did you mean groups?"),
        ({"rules": [{"location": False}]}, "rule 1: location is False, but must be a text: put it in quotes"),
        ({"rules": [{"groups": "mno_staging"}]}, "groups must be a list of names"),
        ({"rules": [{"variables": {"a-b": 1}}]}, "variables must be a mapping of names"),
        ({"rules": [{"regex": "("}]}, "rule 1: regex (: missing )"),
        ({"rules": []}, "rules must be a list of at least one rule"),
        ({"rules": ["a"]}, "rule 1 must be a mapping"),
        ({"rules": [{"match": "c*"}]}, "no rule matches a context of"),
        ({"rules": [{"name": "x"}]}, "context b of"),
        ({"rules": [{"name": "a b"}]}, "'a b' cannot name a host"),
        ({"kubeconfigs": ["missing"]}, "no kubeconfig at"),
        ({"kubeconfigs": ["none/*"]}, "kubeconfigs: no file matches"),
        ({"kubeconfigs": ["kubeconfig.yml"]}, "contexts are none"),
    ],
)
def test_mistakes_in_the_configuration_are_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    written(tmp_path / "config", kubeconfig("a", "b"))
    config = {"kubeconfigs": ["config"], "rules": [{}], **change}
    if "kubeconfig" in change:  # known to the plugin as a whole only
        _, complaints = inventory(tmp_path, {"plugin": "hxmlops.mlops.kubeconfig", **config})
        assert words in complaints
        return
    written(tmp_path / "kubeconfig.yml", {"plugin": "hxmlops.mlops.kubeconfig"})
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        hosts(config, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_word_in_a_template_is_said_and_no_host_is_made(tmp_path: Path) -> None:
    written(tmp_path / "config", kubeconfig("a", "b"))
    rules = [{"match": "a"}, {"party": "{{ contxt }}"}]
    printed, complaints = inventory(
        tmp_path, {"plugin": "hxmlops.mlops.kubeconfig", "kubeconfigs": ["config"], "rules": rules}
    )
    assert "party '{{ contxt }}' of rule 2: 'contxt' is undefined" in complaints
    assert "--a" not in printed


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    plugin = InventoryModule()
    for name, ours in {
        "kubeconfig.yml": True,
        "staging.kubeconfig.yaml": True,
        "hosts.yml": False,
        "kubeconfig": False,
        "kubeconfig.json": False,
    }.items():
        written(tmp_path / name, "")
        assert plugin.verify_file(str(tmp_path / name)) is ours
    assert not plugin.verify_file(str(tmp_path / "missing.kubeconfig.yml"))


NAMES = st.lists(st.from_regex(r"[a-d][a-d0-9-]{0,4}[a-d]", fullmatch=True), min_size=1, max_size=8, unique=True)
PATTERNS = st.sampled_from(["*", "a*", "*b", "[ab]*", "?c*", "d-*", "nothing"])


@given(NAMES, st.lists(PATTERNS, min_size=1, max_size=4), st.text("abcdef0123456789", min_size=16, max_size=16))
def test_the_first_rule_that_matches_wins_and_no_credential_is_copied(
    names: list[str], patterns: list[str], credential: str
) -> None:
    rules = [{"match": pattern, "groups": [f"group_{number}"]} for number, pattern in enumerate(patterns)]
    expected = {
        name: next(number for number, pattern in enumerate(patterns) if fnmatch.fnmatchcase(name, pattern))
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ansible_collections.hxmlops.mlops.plugins.inventory.kubeconfig.load",
            lambda _: load(kubeconfig(*names, token=credential)),
        )
        if not expected:
            with pytest.raises(UserError, match="no rule matches"):
                domains(rules_of(rules), ["config"], lambda text, _: text)
            return
        found = domains(rules_of(rules), ["config"], lambda text, _: text)
    assert {domain.name: domain.groups for domain in found} == {
        name: (f"group_{number}",) for name, number in expected.items()
    }
    assert credential not in repr(found)
