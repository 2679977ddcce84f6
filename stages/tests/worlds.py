"""Two parties with three domains that trust each other, their sharing APIs, and stages run as an executor does."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hxmlops_evidence import keys
from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_evidence.trust import import_card
from hxmlops_stages.program import main

from .samples import CONTRACT, TESTED, energy_record, make_data, make_model
from .servers import SharingApis

POLICY: dict[str, Any] = {"format_policy": {"allow": ["onnx"], "allow_pickles": []}, "energy_budget_j": 20000}
_NUMBERS = itertools.count(1)
PARTIES = {"mno-production": "operator", "mno-staging": "operator", "software-vendor": "vendor"}
PEOPLE = ("ada", "grace")
WORKFLOW = {
    "id": "churn",
    "version": "1.0",
    "owner": "mno-production",
    "vendor": "software-vendor",
    "acceptor": "mno-staging",
    "server": "mno-production",
}


@dataclass(frozen=True)
class Ran:
    """What a stage left: its output, result.json, its progress lines, and what it said on stderr."""

    code: int
    output: Path
    result: dict[str, Any]
    progress: str
    said: str

    @property
    def reason(self) -> str:
        return str(self.result["reason"])

    def read(self, name: str) -> Any:
        return json.loads((self.output / name).read_bytes())


@dataclass(frozen=True)
class Domain:
    """A domain's folder (keys/, trust/, tokens/, people/), and its stages beside it."""

    world: World
    name: str

    @property
    def folder(self) -> Path:
        return self.world.folder / self.name

    def run(self, stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path] | None = None) -> Ran:
        """Run a stage as the executor does: inputs linked in, a folder for equal specs, program.py around it."""
        spec = {
            "stage": stage,
            "domain": self.name,
            "party": PARTIES[self.name],
            "workflow": self.world.workflow,
            "contract": self.world.contract,
            "contract_digest": digest_of(self.world.contract),
            "parameters": parameters,
        }
        folder = self.folder / "stages" / f"{stage}-{digest_of(spec).removeprefix('sha256:')[:12]}"
        shutil.rmtree(folder / "input", ignore_errors=True)
        (folder / "input").mkdir(parents=True)
        for name, source in (inputs or {}).items():
            (folder / "input" / name).symlink_to(source)
        (folder / "spec.json").write_text(json.dumps(spec))
        given = {"spec": folder / "spec.json", "input": folder / "input", "output": folder / "output"}
        given |= {"domain": self.folder}
        arguments = [stage, *(f"--{name}={path}" for name, path in given.items()), "--run-id=run-1", "--location=FI"]
        with redirect_stdout(io.StringIO()) as progress, redirect_stderr(io.StringIO()) as said:
            code = main(arguments)
        result = json.loads((folder / "result.json").read_bytes())
        return Ran(code, folder / "output", result, progress.getvalue(), said.getvalue())


@dataclass(frozen=True)
class World:
    """All three domains and one workflow. Methods run one step each, as its role does."""

    folder: Path
    workflow: dict[str, str]
    contract: dict[str, Any]
    apis: Callable[[], SharingApis]

    def under(self, *, contract: Mapping[str, Any] | None = None, **workflow: str) -> World:
        """The same world, its next steps under a changed workflow or contract."""
        return replace(self, workflow=self.workflow | workflow, contract=self.contract | dict(contract or {}))

    @property
    def production(self) -> Domain:
        return Domain(self, "mno-production")

    @property
    def staging(self) -> Domain:
        return Domain(self, "mno-staging")

    @property
    def vendor(self) -> Domain:
        return Domain(self, "software-vendor")

    def api(self, of: str) -> dict[str, str]:
        """The parameters by which a stage finds a domain's sharing API. The first that asks starts the servers."""
        apis = self.apis()
        for name in PARTIES:
            shutil.copytree(apis.tokens, self.folder / name / "tokens", dirs_exist_ok=True)
        return {"url": apis.urls[of], "token": "api.token"}

    def artifact(self, kind: str, **changes: Any) -> dict[str, Any]:
        """The parameters of `fetch` for one artifact, by default as a workflow asks for it."""
        peer = {"dataset": "mno-production", "model": "software-vendor", "accepted": "mno-staging"}[kind]
        role = {"role": "training"} if kind == "dataset" else {}
        artifact = {"kind": kind, "as": "it", "reference": None, **role, **self.api(peer), **changes}
        return {"artifacts": [artifact]}

    def encrypt(self, **changes: Any) -> Ran:
        parameters = {
            "recipients": {"training": "software-vendor", "hidden": "mno-staging"},
            "valid_days": 90,
            "records": [energy_record("anonymization")],
        }
        released = {path.name: path for path in (self.folder / "released").iterdir()}
        return self.production.run("encryption", parameters | changes, released)

    def publish_dataset(self, encrypted: Ran) -> Ran:
        parts = {role: encrypted.output / role for role in ("training", "hidden")}
        lineage = self.folder / "lineage.parquet"
        lineage.write_bytes(b"who was released in which class")
        given = {**parts, "lineage.parquet": lineage}
        return self.production.run("publish", {"kind": "dataset", **self.api("mno-production")}, given)

    def sign_model(self, protection: Path, **changes: Any) -> Ran:
        """The vendor's evidence stage, on the model in made/."""
        parameters = {
            "valid_days": 90,
            "intended_use": "Offers to subscribers who may leave",
            "training": {"parameters": {"depth": 3}, "seed": 7, "holdout_share": 0.25},
            "lock_digest": sha256_bytes(b"requirements"),
            "sandboxed": False,
            "records": [energy_record("training"), energy_record("testing")],
        }
        made = {path.name: path for path in (self.folder / "made").iterdir()}
        return self.vendor.run("evidence", parameters | changes, {**made, "protection.dsse.json": protection})

    def publish_model(self, signed: Ran) -> Ran:
        inputs = {name: signed.output / name for name in ("model.tar", "evidence.dsse.json")}
        return self.vendor.run("publish", {"kind": "model", **self.api("software-vendor")}, inputs)

    def gate_model(self, tar: Path, evidence: Path, hidden: Path, **policy: Any) -> Ran:
        """The acceptor's gate; `hidden` is the protection statement of the hidden rows."""
        inputs = {"model.tar": tar, "evidence.dsse.json": evidence, "protection.dsse.json": hidden}
        return self.staging.run("gate", {"kind": "model", "policy": POLICY | policy}, inputs)

    def accept(self, gate: Ran, hidden: Path, tested: Mapping[str, Any] | None = TESTED, **changes: Any) -> Ran:
        parameters = {
            "thresholds": {"roc_auc": 0.85},
            "latency_ms_p95": 20,
            "policy": POLICY,
            "person": "ada",
            "valid_days": 30,
            "records": [energy_record("testing")],
        }
        inputs = {"criteria.json": gate.output / "criteria.json", "protection.dsse.json": hidden}
        if tested:
            inputs["report.json"] = self.folder / "tested.json"
            inputs["report.json"].write_text(json.dumps(tested))
        return self.staging.run("acceptance", parameters | changes, inputs)

    def publish_accepted(self, signed: Ran, acceptance: Ran) -> Ran:
        inputs = {
            "model.tar": signed.output / "model.tar",
            "evidence.dsse.json": signed.output / "evidence.dsse.json",
            "acceptance.dsse.json": acceptance.output / "acceptance.dsse.json",
            "recipe.json": self.folder / "released" / "recipe.json",
        }
        return self.staging.run("publish", {"kind": "accepted", **self.api("mno-staging")}, inputs)

    def tell_vendor(self, acceptance: Ran) -> Ran:
        inputs = {"acceptance.dsse.json": acceptance.output / "acceptance.dsse.json"}
        return self.staging.run("publish", {"kind": "verdict", **self.api("software-vendor")}, inputs)

    def approve(self, acceptance: Path, person: str = "grace", **changes: Any) -> Ran:
        parameters = {"person": person, "target_domain": "mno-production", "valid_days": 30}
        return self.production.run("approval", parameters | changes, {"acceptance.dsse.json": acceptance})

    def gate_promotion(self, tar: Path, acceptance: Path, recipe: Path | None = None) -> Ran:
        """The server's gate."""
        recipe = recipe or self.folder / "released" / "recipe.json"
        inputs = {"model.tar": tar, "acceptance.dsse.json": acceptance, "recipe.json": recipe}
        return self.production.run("gate", {"kind": "promotion"}, inputs)


def done(ran: Ran) -> Ran:
    assert ran.code == 0, ran.said
    return ran


def assert_refused(ran: Ran, criterion: str, says: str) -> None:
    """One line that says why, and nothing in the output but what a verdict on it is made of."""
    assert (ran.code, ran.result["status"], ran.result["criterion"]) == (2, "refused", criterion), ran.said
    assert says in ran.reason
    assert ran.said.splitlines() == [f"{ran.result['stage']}: {ran.reason}"]
    assert {path.name for path in ran.output.iterdir()} <= {"report.json"}
    assert ran.result["outputs"].keys() <= {"report.json"}


@dataclass(frozen=True)
class Accepted:
    """A world in which a model was built, and accepted by the acceptor; nothing is published. Its files by name."""

    world: World
    encrypted: Ran
    signed: Ran
    gate: Ran
    acceptance: Ran

    @property
    def hidden(self) -> Path:
        return self.encrypted.output / "hidden" / "protection.dsse.json"

    @property
    def protection(self) -> Path:
        return self.encrypted.output / "training" / "protection.dsse.json"

    @property
    def tar(self) -> Path:
        return self.signed.output / "model.tar"

    @property
    def evidence(self) -> Path:
        return self.signed.output / "evidence.dsse.json"

    @property
    def verdict(self) -> Path:
        return self.acceptance.output / "acceptance.dsse.json"

    def within(self, folder: Path) -> Accepted:
        """The same in a copy of its folder."""
        old = self.world.folder
        shutil.copytree(old, folder, symlinks=True, dirs_exist_ok=True)
        stages = {
            name: replace(ran, output=folder / ran.output.relative_to(old))
            for name, ran in vars(self).items()
            if name != "world"
        }
        return replace(self, world=replace(self.world, folder=folder), **stages)


def new_world(folder: Path, apis: Callable[[], SharingApis]) -> World:
    """Three domains with keys that have pinned each other, and a workflow of their own."""
    people = folder / "mno-production" / "people"
    cards = [keys.make_person(people, party="operator", person=person) for person in PEOPLE]
    shutil.copytree(people, folder / "mno-staging" / "people")
    for name, party in PARTIES.items():
        keys.make_keys(folder / name / "keys")
        cards.append(keys.make_card(folder / name / "keys", party=party, domain=name))
    trust = folder / "mno-production" / "trust"
    for card in cards:
        import_card(trust, card, card["fingerprint"])
    for name in ("mno-staging", "software-vendor"):
        shutil.copytree(trust, folder / name / "trust")
    make_data(folder / "released")
    make_model(folder / "made")
    return World(folder, WORKFLOW | {"id": f"churn-{next(_NUMBERS)}"}, CONTRACT, apis)


def accepted_in(folder: Path, apis: Callable[[], SharingApis]) -> Accepted:
    """Run all steps up to the acceptance, by files alone."""
    world = new_world(folder, apis)
    encrypted = done(world.encrypt())
    hidden = encrypted.output / "hidden" / "protection.dsse.json"
    signed = done(world.sign_model(encrypted.output / "training" / "protection.dsse.json"))
    gate = done(world.gate_model(signed.output / "model.tar", signed.output / "evidence.dsse.json", hidden))
    return Accepted(world, encrypted, signed, gate, done(world.accept(gate, hidden)))
