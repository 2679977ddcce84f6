"""The collection's Ansible modules as playbooks use them; each play is one ansible-playbook."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = "{{ ansible_playbook_python }}"


class Play:
    """Runs a list of tasks on one domain and answers each task's result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"

    def __call__(self, *tasks: dict[str, Any], check: bool = False) -> list[dict[str, Any]]:
        plays = [{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]
        (self.folder / "play.yml").write_text(yaml.safe_dump(plays))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "mno-production,", "-c", "local",
             str(self.folder / "play.yml"), *(["--check"] if check else [])],
            cwd=PROJECT,
            env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_NOCOLOR": "1",
                 "ANSIBLE_DISPLAY_OK_HOSTS": "true", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                 "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), "ANSIBLE_CALLBACK_FORMAT_PRETTY": "false"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.code, self.output = done.returncode, done.stdout + done.stderr
        assert "Traceback" not in self.output
        return [json.loads(line.partition(" => ")[2]) for line in done.stdout.splitlines() if "] => {" in line]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def loud(module: str, **arguments: Any) -> dict[str, Any]:
    """A task whose result is shown."""
    return {"name": module, f"hxmlops.mlops.{module}": arguments, "register": "shown", "ignore_errors": True}


SHOW = {"ansible.builtin.debug": {"var": "shown"}}


def test_keys_are_made_once_and_a_lost_one_is_made_again(play: Play) -> None:
    keys = loud("party_keys", state=str(play.state), python=PYTHON, domain="mno-production", party="operator",
                people=["bob"], offer=str(play.folder / "exchange" / "card.json"))  # fmt: skip
    check = play(keys, SHOW, check=True)[-1]["shown"]
    assert check["changed"]
    assert not play.state.exists()
    first = play(keys, SHOW)[-1]["shown"]
    assert first["made"] == ["keys", "bob", "card"]
    private = (play.state / "keys" / "signing.pem").read_bytes()
    again = play(keys, SHOW)[-1]["shown"]
    assert not again["changed"]
    assert again["fingerprint"] == first["fingerprint"]
    assert (play.state / "keys" / "signing.pem").read_bytes() == private
    (play.state / "trust" / "bob.json").unlink()
    assert play(keys, SHOW)[-1]["shown"]["made"] == ["bob"], "make clean keeps keys and removes pins"
    assert (play.state / "trust" / "bob.json").exists()


def test_a_peers_card_needs_a_compared_fingerprint(play: Play) -> None:
    vendor = play.folder / "vendor"
    keys = loud("party_keys", state=str(vendor), python=PYTHON, domain="software-vendor", party="vendor",
                offer=str(play.folder / "vendor.json"))  # fmt: skip
    fingerprint = play(keys, SHOW)[-1]["shown"]["fingerprint"]

    def pin(**peer: str) -> dict[str, Any]:
        peers = {"software-vendor": {"card": str(play.folder / "vendor.json"), **peer}}
        task = loud("peers", what="keys", state=str(play.state), python=PYTHON, peers=peers)
        shown: dict[str, Any] = play(task, SHOW)[-1]["shown"]
        return shown

    assert "compare the fingerprint" in pin()["msg"]
    wrong = pin(fingerprint="sha256:" + "0" * 64)
    assert wrong["failed"]
    assert not (play.state / "trust").exists() or not list((play.state / "trust").glob("*.json"))
    assert pin(fingerprint=fingerprint)["imported"] == ["software-vendor"]
    assert not pin(fingerprint=fingerprint)["changed"]


def test_tokens_are_issued_once_and_anew_when_rights_change(play: Play) -> None:
    def issue(scopes: list[str], **more: Any) -> dict[str, Any]:
        task = loud("sharing_tokens", tokens=str(play.state / "tokens.json"), python=PYTHON, state=str(play.state),
                    courier=str(play.folder / "exchange"),
                    clients=[{"client": "mno-production", "scopes": ["read", "write"]},
                             {"client": "mno-staging", "scopes": scopes, **more}])  # fmt: skip
        shown: dict[str, Any] = play(task, SHOW)[-1]["shown"]
        return shown

    assert issue(["read"])["issued"] == ["mno-production", "mno-staging"]
    held = (play.state / "issued" / "mno-staging.token").read_text()
    assert held.strip() not in play.output
    assert held.strip() not in (play.state / "tokens.json").read_text(), "the API keeps only a digest"
    assert (play.folder / "exchange" / "mno-production" / "mno-staging.token").read_text() == held
    assert not issue(["read"])["changed"]
    assert issue(["read", "annotate"])["issued"] == ["mno-staging"]
    more = {"purpose": "acceptance", "recipient": "operator", "quota_bytes": 5 << 30, "requests_per_minute": 600}
    assert issue(["read", "annotate"], **more)["issued"] == ["mno-staging"]
    assert not issue(["read", "annotate"], **more)["changed"]
    (grant,) = [each for each in json.loads((play.state / "tokens.json").read_text()) if len(each) > 5]
    assert {name: grant[name] for name in more} == more


def test_a_service_that_cannot_start_says_why_at_once(play: Play) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        common = {"name": "broken", "domain_state": str(play.state), "python": PYTHON}
        busy = play(loud("local_service", **common, command=["-c", "1"], port=port), SHOW)[-1]["shown"]
    assert f"port {port} of 127.0.0.1 is taken by another program" in busy["msg"]
    command = ["-c", "raise SystemExit('no such model')"]
    crash = play(loud("local_service", **common, command=command, port=port), SHOW,
                 loud("local_service", state="absent", domain_state=str(play.state), python=PYTHON))  # fmt: skip
    assert "broken: it does not start" in crash[-1]["shown"]["msg"]
    assert "no such model" in crash[-1]["shown"]["msg"]


def test_a_service_runs_until_it_is_told_to_stop(play: Play) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = loud("local_service", name="web", domain_state=str(play.state), python=PYTHON, health="/",
               command=["-m", "http.server", "--bind", "127.0.0.1", str(port)], port=port)  # fmt: skip
    stop = loud("local_service", state="absent", domain_state=str(play.state), python=PYTHON)
    assert play(web, SHOW, check=True)[-1]["shown"]["changed"]
    assert not play.state.exists()
    shown = [result["shown"] for result in play(web, SHOW, web, SHOW, stop, SHOW, stop, SHOW) if "shown" in result]
    assert [result["changed"] for result in shown] == [True, False, True, False]
