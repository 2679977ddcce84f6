"""Runs that are killed, that meet another run, or find a port taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.lab import DOMAINS, Lab, laboratory

STEPS = {
    "release_dataset": ("mno-production", ("data_validation", "anonymization", "encryption", "publish")),
    "build_model": ("software-vendor", ("fetch", "data_validation", "training", "testing", "evidence", "publish")),
    "accept_model": ("mno-staging", ("fetch", "gate", "testing", "acceptance", "publish")),
    "promote_model": ("mno-production", ("fetch", "approval", "gate", "promotion")),
    "energy_report": ("mno-production", ("report",)),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with laboratory(tmp_path_factory.mktemp("broken")) as made:
        yield made


def started(lab: Lab, domain: str, stage: str) -> set[Path]:
    return set((lab.state(domain) / "stages").glob(f"{stage}-*/lock"))


def test_a_taken_port_is_named_with_what_to_set(lab: Lab) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", lab.port))
        other.listen()
        played = lab.play()
    played.failed(f"port {lab.port} of 127.0.0.1 is taken by another program")


def test_a_run_killed_at_every_stage_goes_on_and_publishes_once(lab: Lab) -> None:
    lab.play("keys").succeeded()
    lab.play("deploy").succeeded()
    seen: dict[str, str] = {}
    for step, (domain, stages) in STEPS.items():
        for number, stage in enumerate(stages):
            before = started(lab, domain, stage)
            with lab.start(step) as run:
                deadline = time.monotonic() + 60
                while not started(lab, domain, stage) - before and run.poll() is None:
                    assert time.monotonic() < deadline, f"{stage} in {domain} never started"
                    time.sleep(0.01)
                assert run.poll() is None, f"{step} ended before {stage} started"
                if number % 2:
                    os.killpg(run.pid, signal.SIGKILL)
                else:  # only the parent: its forked workers live on for a moment, as does the stage's program
                    os.kill(run.pid, signal.SIGKILL)
                run.communicate(timeout=60)
            for name, digest in contents(lab).items():
                assert seen.setdefault(name, digest) == digest, f"{name} changed after a kill at {stage}"
        lab.play(step).succeeded()
    assert lab.play().succeeded().changed == 0
    for database in ("mno-production/dataset", "software-vendor/model", "mno-staging/model"):
        names = published(lab, database)
        assert len(names) == len(set(names)) == (2 if "dataset" in database else 1), (database, names)


def contents(lab: Lab) -> dict[str, str]:
    """Digests of what does not depend on time: the tables, the recipe, the model."""
    wanted = ("training.parquet", "hidden.parquet", "recipe.json", "data.parquet", "model.onnx", "holdout.parquet")
    return {
        f"{domain}/{result['stage']}/{name}": digest
        for domain in DOMAINS
        for stage in ("data_validation", "anonymization", "fetch", "training")
        for result in lab.stages(domain, stage)
        if result["status"] == "done"
        for name, digest in result["outputs"].items()
        if name.rsplit("/", 1)[-1] in wanted
    }


def published(lab: Lab, database: str) -> list[str]:
    """Names and versions in a sharing API's database."""
    import sqlite3

    domain, kind = database.split("/")
    file = lab.state(domain) / f"{kind}_sharing" / "records.db"
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        return [f"{name} {version}" for name, version in connection.execute(f"select name, version from {kind}s")]  # noqa: S608


def test_a_second_run_at_the_same_time_says_so_and_stops(lab: Lab) -> None:
    lab.change("workflow.yml", "n_estimators: 200", "n_estimators: 210")
    with lab.start("build_model", "--limit", "software-vendor") as run:
        while json.loads((lab.state("software-vendor") / "run.json").read_text())["pid"] != run.pid:
            time.sleep(0.01)
        second = lab.play("build_model", "--limit", "software-vendor")
        output, _ = run.communicate(timeout=120)
    second.failed("another run works in domain software-vendor since")
    assert run.returncode == 0, output


def test_a_step_by_the_wrong_domain_names_the_right_one(lab: Lab) -> None:
    lab.change("workflow.yml", "vendor: software-vendor", "vendor: mno-staging")
    lab.play("build_model").failed("unknown key domains.software-vendor")
