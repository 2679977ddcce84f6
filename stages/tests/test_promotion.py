"""Promotion and rollback, on a real model server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_model_server.testing import (
    COLUMNS,
    CONTRACT_DIGEST,
    RECIPE,
    ROW,
    WORKFLOW,
    Client,
    Parties,
    Server,
    Serving,
    accepted,
    pin_with,
    tiny_model,
)
from hxmlops_stages import promotion, smoke_test
from hxmlops_stages.processes import held
from hxmlops_stages.program import Context, Failed, Outcome
from hxmlops_stages.serving import ServingFolder


class Production:
    """The production domain: its model server, and promotions into it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.client = folder, server, server.client
        self.parties = server.serving.parties
        self.domain = self.parties.folder

    @property
    def listed(self) -> dict[str, Any]:
        """What serving.json says of the model; {} when it does not know it."""
        return dict(json.loads((self.server.serving.folder / "serving.json").read_bytes())["models"].get("churn", {}))

    def roles(self) -> tuple[Any, ...]:
        """Current, previous, and all versions, of which there must be exactly these folders."""
        served = self.server.serving.folder / "churn"
        there = sorted(path.name for path in served.iterdir()) if served.is_dir() else []
        versions = sorted(self.listed.get("versions", {}))
        assert there == versions
        return self.listed.get("current"), self.listed.get("previous"), versions

    def answering(self) -> str:
        """The version that answers where none is named, or why none does."""
        answer = self.client.post("/v2/models/churn/infer", {"inputs": ROW})[1]
        return str(answer.get("model_version", answer.get("error")))

    def input(self, version: str, onnx: bytes) -> Path:
        """The stage's input: an accepted model as the gate leaves it, the recipe, and raw rows."""
        folder = self.folder / f"input-{version}-{len(list(self.folder.iterdir()))}"
        accepted(folder / "model", self.parties, version, onnx)
        (folder / "model" / "recipe.json").rename(folder / "recipe.json")
        rows = 60
        columns = {
            "subscriber": list(range(1, rows + 1)),
            "state": ["CA", "NY", "TX"] * (rows // 3),
            "tenure": [row * 7 for row in range(rows)],
            "minutes": [row / 8 for row in range(rows)],
            "roaming": [row % 4 == 0 for row in range(rows)],
            "left": ["no", "yes"] * (rows // 2),
        }
        pq.write_table(pa.table(columns), folder / "data.parquet")
        return folder

    def spec(self, version: str, **parameters: Any) -> dict[str, Any]:
        return {
            "stage": "promotion",
            "domain": "production",
            "party": "operator",
            "workflow": WORKFLOW | {"version": "1.0", "owner": "production"},
            "contract": {"schema": {"columns": COLUMNS}, "model": {"task": "classification"}},
            "contract_digest": CONTRACT_DIGEST,
            "parameters": {
                "server_url": f"http://127.0.0.1:{self.server.started['port']}",
                "serving": str(self.server.serving.folder),
                "name": "churn",
                "version": version,
                "smoke_rows": 5,
                "latency_ms_p95": 1000,
                "rollback": False,
                "on_purpose": False,
                "output": {"name": "probabilities", "index": 1, "positive": "yes"},
                **parameters,
            },
        }

    def run(self, spec: dict[str, Any], given: Path, domain: Path | None = None) -> Outcome:
        output = self.folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        return promotion.run(Context(spec, given, output, domain or self.domain, "run-1", "NO"))

    def promote(self, version: str, bias: float = 0.0, **parameters: Any) -> Outcome:
        return self.run(self.spec(version, **parameters), self.input(version, tiny_model(bias)))

    def roll_back(self, domain: Path | None = None, **parameters: Any) -> Outcome:
        spec = self.spec("1.0.9", rollback=True, **parameters)
        return self.run(spec, self.input("1.0.9", tiny_model(9.0)), domain)

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "output" / "promotion.json").read_bytes()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    serving = Serving(tmp_path_factory.mktemp("serving"), Parties(tmp_path_factory.mktemp("domain")))
    server = Server(serving)
    yield server
    server.stop()


@pytest.fixture
def production(server: Server, tmp_path: Path) -> Production:
    """A production domain that serves nothing yet."""
    server.empty()
    return Production(tmp_path, server)


@pytest.fixture
def two_served(server: Server, tmp_path: Path) -> Production:
    """A production domain that serves 1.0.1 and has 1.0.0 ready."""
    production = Production(tmp_path, server)
    if (production.listed.get("current"), production.listed.get("previous")) != ("1.0.1", "1.0.0"):
        server.empty()
        server.serving.add("1.0.0", tiny_model(0.0))
        server.serving.add("1.0.1", tiny_model(1.0))
        server.serving.switch("1.0.1", "1.0.0")
    server.client.wait("1.0.0")
    server.client.wait("1.0.1")
    server.client.wait_current("1.0.1")
    return production


def test_from_the_first_promotion_to_a_rollback(production: Production) -> None:
    outcome = production.promote("1.0.1")
    assert (outcome.changed, outcome.summary) == (True, "churn 1.0.1 is served")
    assert outcome.metrics["smoke_rows"] == 5
    assert outcome.metrics["greatest_difference"] < 1e-6
    assert 0 < outcome.metrics["latency_ms_p50"] <= outcome.metrics["latency_ms_p95"]
    assert production.roles() == ("1.0.1", None, ["1.0.1"])
    assert production.answering() == "1.0.1"
    assert production.report.items() >= {"name": "churn", "version": "1.0.1", "previous": None}.items()
    assert production.report["model_digest"] == production.listed["versions"]["1.0.1"]["model_digest"]

    report, before = production.report, production.listed
    again = production.promote("1.0.1")
    assert (again.changed, again.summary) == (False, "churn 1.0.1 is served already")
    assert (production.report, production.listed) == (report, before)

    assert production.promote("1.0.2", bias=1).summary == "churn 1.0.2 is served instead of 1.0.1"
    assert production.roles() == ("1.0.2", "1.0.1", ["1.0.1", "1.0.2"])
    assert production.client.get("/v2/models/churn/versions/1.0.1/ready")[0] == 200

    production.promote("1.0.3", bias=2)
    assert production.roles() == ("1.0.3", "1.0.2", ["1.0.2", "1.0.3"])

    assert production.roll_back().summary == "churn 1.0.2 is served instead of 1.0.3"
    assert production.roles() == ("1.0.2", "1.0.3", ["1.0.2", "1.0.3"])
    assert production.answering() == "1.0.2"
    assert production.report["rolled_back_from"] == "1.0.3"

    again = production.roll_back()
    assert (again.changed, again.summary) == (False, "churn 1.0.2 is served, 1.0.3 is rolled back already")

    kept = production.promote("1.0.3", bias=2)
    assert not kept.changed
    assert kept.summary.startswith("churn 1.0.2 stays in service: 1.0.3 was rolled back")
    assert production.promote("1.0.3", bias=2, on_purpose=True).changed
    assert production.roles() == ("1.0.3", "1.0.2", ["1.0.2", "1.0.3"])

    production.promote("1.0.4", bias=3)
    assert production.roles() == ("1.0.4", "1.0.3", ["1.0.3", "1.0.4"])


def test_the_previous_version_may_be_promoted_again(two_served: Production) -> None:
    two_served.promote("1.0.0")
    assert two_served.roles() == ("1.0.0", "1.0.1", ["1.0.0", "1.0.1"])


def test_rollback_without_a_previous_version(production: Production) -> None:
    with pytest.raises(BadInput, match=r"^churn has no previous version to go back to; promote another one$"):
        production.roll_back()


def test_rollback_is_smoke_tested_too(two_served: Production) -> None:
    with pytest.raises(Refused, match=r"^smoke_test: 95 % of requests take .*; 1.0.1 is served as before$"):
        two_served.roll_back(latency_ms_p95=0.001)
    assert two_served.roles() == ("1.0.1", "1.0.0", ["1.0.0", "1.0.1"])


def test_rollback_to_a_version_whose_vendors_key_was_revoked_since(two_served: Production, tmp_path: Path) -> None:
    domain = tmp_path / "domain"
    shutil.copytree(two_served.parties.trust, domain / "trust")
    pin_with(domain / "trust", "vendor", "revoked_at")
    with pytest.raises(Refused, match=r"^revocation: key .* of vendor was revoked"):
        two_served.roll_back(domain)
    assert two_served.answering() == "1.0.1"


def not_finite(production: Production) -> None:
    production.promote("1.0.2", on_purpose=True, bias=float("nan"))


def too_slow(production: Production) -> None:
    production.promote("1.0.2", bias=1, latency_ms_p95=0.001)


def not_loadable(production: Production) -> None:
    given = production.input("1.0.2", tiny_model(1.0))
    (given / "model" / "model.onnx").write_bytes(tiny_model(2.0))
    production.run(production.spec("1.0.2"), given)


def without_the_output(production: Production) -> None:
    production.run(production.spec("1.0.2"), production.input("1.0.2", tiny_model(1.0, output="others")))


@pytest.mark.parametrize(
    ("promote", "reason"),
    [
        (not_finite, "model.onnx answers NaN or infinity for 5 of 5 rows"),
        (too_slow, "95 % of requests take up to .* ms, more than the 0.001 ms allowed"),
        (not_loadable, "churn 1.0.2 does not load: the digest of model.onnx is not the one that was accepted"),
        (without_the_output, "churn 1.0.2 does not load: the model has no output probabilities"),
    ],
)
def test_a_version_that_fails_leaves_all_as_it_was(two_served: Production, promote: Any, reason: str) -> None:
    before = two_served.listed
    with pytest.raises(Refused, match=f"^smoke_test: {reason}.*; 1.0.1 is served as before$"):
        promote(two_served)
    assert two_served.listed == before
    assert two_served.roles() == ("1.0.1", "1.0.0", ["1.0.0", "1.0.1"])
    assert two_served.answering() == "1.0.1"


def test_a_first_version_that_fails_leaves_nothing(production: Production) -> None:
    with pytest.raises(Refused, match=r"; nothing is served, as before$"):
        not_finite(production)
    assert production.roles() == (None, None, [])


def test_a_failure_after_the_switch_brings_the_version_before_back(
    two_served: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = two_served.listed
    confirm = promotion._Promotion._confirm

    def switched_and_then_gone(self: Any, *given: Any) -> None:
        confirm(self, *given)
        assert two_served.answering() == "1.0.2"
        raise smoke_test.Unreachable("the server is gone")

    monkeypatch.setattr(promotion._Promotion, "_confirm", switched_and_then_gone)
    with pytest.raises(Refused, match=r"^smoke_test: the server is gone; 1.0.1 is served as before$"):
        two_served.promote("1.0.2", bias=2)
    assert two_served.listed == before
    two_served.client.wait_current("1.0.1")
    assert two_served.answering() == "1.0.1"


def test_a_current_version_whose_files_were_damaged_is_put_there_again(two_served: Production) -> None:
    serving = two_served.server.serving
    serving.models = {"churn": two_served.listed}
    serving.models["churn"]["versions"]["1.0.1"]["listed_at"] = "anew, as if the server had restarted"
    (serving.folder / "churn/1.0.1/model.onnx").write_bytes(b"damaged")
    serving.write()
    two_served.client.wait("1.0.1", "failed")
    assert two_served.promote("1.0.1", bias=1).changed
    assert two_served.roles() == ("1.0.1", "1.0.0", ["1.0.0", "1.0.1"])
    assert two_served.answering() == "1.0.1"


def test_a_served_version_with_other_content(two_served: Production) -> None:
    with pytest.raises(Refused, match=r"^version: churn 1.0.1 is served with other content; publish it as a new ver"):
        two_served.promote("1.0.1", bias=2)


def test_another_recipe_than_the_accepted_one(two_served: Production) -> None:
    given = two_served.input("1.0.2", tiny_model(0.0))
    (given / "recipe.json").write_text(json.dumps(RECIPE | {"pseudonym": True}))
    with pytest.raises(Refused, match=r"^recipe: recipe.json is not the recipe"):
        two_served.run(two_served.spec("1.0.2"), given)


def test_two_promotions_at_once(two_served: Production) -> None:
    with (
        held(two_served.server.serving.folder / "promotion.lock"),
        pytest.raises(Failed, match=rf"a promotion is already running by pid {os.getpid()}; wait for its end$"),
    ):
        two_served.promote("1.0.2")


def test_a_damaged_serving_json(production: Production) -> None:
    file = production.server.serving.folder / "serving.json"
    file.write_text("{")
    with pytest.raises(BadInput, match=r"serving.json: damaged; remove it and promote again$"):
        production.promote("1.0.1")
    production.server.serving.write()


class Killed(BaseException):
    """As SIGKILL, it is not an Exception: nobody undoes anything."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke test, which is tested elsewhere, passes without being done."""
    passed = smoke_test.Figures(1, 0.0, 1.0, 1.0), {str(column["name"]): list(column["data"]) for column in ROW}
    monkeypatch.setattr(promotion._Promotion, "_smoke_test", lambda *_: passed)


def killed_at(owner: Any, step: str, times: int, go: Callable[[], Outcome]) -> None:
    """Run, until this step is about to be done for the nth time."""
    real, calls = getattr(owner, step), []

    def stop(*given: Any, **options: Any) -> Any:
        calls.append(step)
        if len(calls) == times:
            raise Killed
        return real(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, stop)
        with pytest.raises(Killed):
            go()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("owner", "step", "times"),
    [
        (ServingFolder, "install", 1),
        (Path, "rename", 1),  # of the copied folder to its place
        (ServingFolder, "write", 2),  # which lists it; the first settled what was there
        (promotion._Promotion, "_smoke_test", 1),
        (ServingFolder, "write", 3),  # which switches
        (promotion._Promotion, "_confirm", 1),
        (ServingFolder, "clean", 2),
        (promotion._Promotion, "record", 1),
    ],
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
def test_killed_at_any_step_a_second_run_finishes(two_served: Production, owner: Any, step: str, times: int) -> None:
    killed_at(owner, step, times, lambda: two_served.promote("1.0.2", bias=2))
    assert two_served.answering() in ("1.0.1", "1.0.2")
    two_served.promote("1.0.2", bias=2)
    assert two_served.roles() == ("1.0.2", "1.0.1", ["1.0.1", "1.0.2"])
    assert two_served.answering() == "1.0.2"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("owner", "step"), [(promotion._Promotion, step) for step in ("_smoke_test", "_confirm", "record")]
)
def test_a_rollback_that_was_killed_is_not_rolled_back_again(two_served: Production, owner: Any, step: str) -> None:
    killed_at(owner, step, 1, two_served.roll_back)
    two_served.roll_back()
    assert two_served.roles() == ("1.0.0", "1.0.1", ["1.0.0", "1.0.1"])
    assert two_served.answering() == "1.0.0"


@pytest.mark.usefixtures("quick")
def test_a_process_that_was_killed_amid_its_work(two_served: Production) -> None:
    production = two_served
    folder = production.folder / "stage"
    (folder / "output").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(production.spec("1.0.2")))
    given = production.input("1.0.2", tiny_model(2.0))
    options = ["--spec", folder / "spec.json", "--input", given, "--output", folder / "output"]
    options += ["--domain", production.domain, "--run-id", "run-1", "--location", "NO"]
    command = [sys.executable, "-m", "hxmlops_stages", "promotion", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if "is listed" in line:
                process.kill()
    assert process.returncode == -9
    assert production.answering() == "1.0.1"
    production.run(production.spec("1.0.2"), given)
    assert production.roles() == ("1.0.2", "1.0.1", ["1.0.1", "1.0.2"])
    assert production.answering() == "1.0.2"


def test_no_request_fails_during_promotions_failures_and_rollbacks(two_served: Production) -> None:
    production = two_served
    seen: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        with Client(production.server.started["port"]) as client:
            while not done.is_set() and len(seen) < 20_000:
                status, answer = client.post("/v2/models/churn/infer", {"inputs": ROW})
                seen.append((status, answer.get("model_version", answer)))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    production.promote("1.0.2", bias=2)
    production.roll_back()
    with pytest.raises(Refused):
        not_finite(production)
    production.promote("1.0.3", bias=3)
    deadline = time.monotonic() + 10
    while seen[-1][1] != "1.0.3" and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for asker in askers:
        asker.join()
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {"1.0.1", "1.0.2", "1.0.3"}
    assert len(seen) > 20
