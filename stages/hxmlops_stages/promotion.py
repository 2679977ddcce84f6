"""Promotion: an accepted model into service, or back out of it, without a request failing.

Reads `model/` (as the gate verified it: the model's files, `evidence.dsse.json`, `acceptance.dsse.json`),
`recipe.json` and `data.parquet` (raw rows); leaves `promotion.json`. Parameters: server_url, serving (the
server's folder), name, version, smoke_rows, latency_ms_p95, rollback, on_purpose (a version that was rolled back is
served again), output.

The version is copied beside those that are served and listed, but answers nobody until the server has it
ready and it has passed the smoke test. The version before it stays ready. Whatever fails, the state before is
the state after. Killed at any point, a second run finishes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hxmlops_evidence.digests import digest_of
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.statements import Statement, read
from hxmlops_evidence.trust import Trust
from hxmlops_stages import smoke_test
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.serving import Entry, Served, ServingFolder

LIVE_S, READY_S, SWITCHED_S = 15.0, 60.0, 10.0
_POLL_S, _SAY_EVERY_S = 0.05, 5.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def run(context: Context) -> Outcome:
    """Promote, or roll back. Refused("smoke_test") when the version does not prove itself; BadInput; Failed."""
    promotion = _Promotion(context)
    with promotion.server as server, promotion.folder.locked():
        server.wait_until_live(LIVE_S)
        outcome = promotion.roll_back() if context.parameters.get("rollback") else promotion.promote()
        promotion.record()
    return outcome


class _Promotion:
    def __init__(self, context: Context) -> None:
        parameters = context.parameters
        self.context = context
        self.name, self.version = str(parameters["name"]), str(parameters["version"])
        for what in (self.name, self.version):
            if not _NAME.fullmatch(what):
                raise BadInput("name and version must be of letters, digits, '.', '_' and '-'")
        self.folder = ServingFolder(Path(parameters["serving"]))
        self.server = smoke_test.Server(parameters["server_url"])

    def promote(self) -> Outcome:
        """Serve the model that was given, as the version that was given."""
        before, model = self._settled(), _model(self.context)
        listed = before.versions.get(self.version)
        if before.rolled_back_from == self.version and not self.context.parameters["on_purpose"]:
            return Outcome(
                f"{self.name} {before.current} stays in service: {self.version} was rolled back; to serve that again, "
                "name its digest with -e hxmlops_model=sha256:...",
                changed=False,
            )
        if listed and not model.items() <= listed.items():
            raise Refused(
                "version", f"{self.name} {self.version} is served with other content; publish it as a new version"
            )
        not_ready = self._await(self.version, listed) if listed else "not there yet"
        if before.current == self.version and not not_ready:
            self._await_switch(self.version)
            return Outcome(f"{self.name} {self.version} is served already", changed=False)

        def prepare() -> Entry:
            if listed and not not_ready:
                return listed
            return model | self.folder.install(self.name, self.version, _files(self.context.input))

        before_it = before.previous if before.current == self.version else before.current
        return self._switch(before, Served(self.version, before_it), prepare)

    def roll_back(self) -> Outcome:
        """Serve the previous version again; the current one becomes the previous. A second time changes nothing."""
        before = self._settled()
        if before.rolled_back_from:
            self._await_switch(str(before.current))
            return Outcome(
                f"{self.name} {before.current} is served, {before.rolled_back_from} is rolled back already",
                changed=False,
            )
        if before.previous is None:
            raise BadInput(f"{self.name} has no previous version to go back to; promote another one")
        self._check_not_revoked(before.previous)
        after = Served(before.previous, before.current, rolled_back_from=before.current)
        return self._switch(before, after, lambda: before.versions[after.current or ""])

    def record(self) -> None:
        """Write what is served now. It is the same whenever the same is served."""
        served = self.folder.read(self.name)
        entry = served.versions[served.current or ""]
        report = {
            "name": self.name,
            "version": served.current,
            "previous": served.previous,
            "rolled_back_from": served.rolled_back_from,
            "model_digest": entry["model_digest"],
            "recipe_digest": entry["recipe_digest"],
            "server_url": self.server.url,
        }
        text = json.dumps(report, indent=1, sort_keys=True) + "\n"
        (self.context.output / "promotion.json").write_text(text)

    def _switch(self, before: Served, after: Served, prepare: Callable[[], Entry]) -> Outcome:
        """From one state to the next: the version ready, tested, switched to and seen to answer, or all undone."""
        version = str(after.current)
        try:
            entry = prepare()
            self.folder.write(self.name, before.listing(version, entry))
            self.context.say(f"{self.name} {version} is listed, waiting until the server has it ready")
            if reason := self._await(version, entry):
                raise Refused("smoke_test", f"{self.name} {version} does not load: {reason}")
            figures, row = self._smoke_test(version, entry)
            self.context.say(f"the smoke test of {figures.rows} rows has passed, switching to {version}")
            self.folder.write(self.name, after.with_versions_of(before.listing(version, entry)))
            self._confirm(version, entry, row)
        except Exception as problem:
            self._settle(before)
            if isinstance(problem, Refused | smoke_test.Unreachable):
                kept = f"{before.current} is served as before" if before.current else "nothing is served, as before"
                reason = problem.reason if isinstance(problem, Refused) else str(problem)
                raise Refused("smoke_test", f"{reason}; {kept}") from None
            raise
        self._settled()
        metrics = {
            "smoke_rows": figures.rows,
            "greatest_difference": figures.greatest_difference,
            "latency_ms_p50": round(figures.latency_ms_p50, 3),
            "latency_ms_p95": round(figures.latency_ms_p95, 3),
        }
        instead = f" instead of {before.current}" if before.current not in (None, version) else ""
        return Outcome(f"{self.name} {version} is served{instead}", metrics=metrics)

    def _settled(self) -> Served:
        """What is served, after the leftovers of a killed promotion and versions before the previous are gone."""
        served = self.folder.read(self.name).settled()
        self._settle(served)
        return served

    def _settle(self, served: Served) -> None:
        self.folder.write(self.name, served)
        self.folder.clean(self.name)

    def _await(self, version: str, entry: Entry) -> str | None:
        """Wait until the server has loaded the version as `entry` lists it: None, or the reason why it cannot."""
        start = said = time.monotonic()
        while time.monotonic() < start + READY_S:
            try:
                found = self.server.parameters(self.name, version)
            except smoke_test.Unreachable:  # it may have crashed and be starting again
                found = {}
            if found.get("listed_at") == entry["listed_at"] and found["state"] != "loading":
                return None if found["state"] == "ready" else str(found["reason"])
            if time.monotonic() > said + _SAY_EVERY_S:
                said = time.monotonic()
                self.context.say(f"still waiting for {self.name} {version} ({said - start:.0f} s)")
            time.sleep(_POLL_S)
        return f"the server has not taken it up in {READY_S:.0f} s; does it run, and serve from {self.folder.folder}?"

    def _smoke_test(self, version: str, entry: Entry) -> tuple[smoke_test.Figures, smoke_test.Columns]:
        """The figures, and one of the rows. Scores are compared with those of the same files without the server."""
        from hxmlops_recipe.recipe import RowTransformer
        from hxmlops_stages.inference import Model

        parameters, folder = self.context.parameters, self.folder.path(self.name, version)
        recipe, columns = json.loads((folder / "recipe.json").read_bytes()), entry["columns"]
        used = {feature["column"] for feature in recipe["features"]}
        rows = smoke_test.sample(
            self.context.input / "data.parquet",
            [name for name in columns if name in used],
            int(parameters["smoke_rows"]),
        )
        features = RowTransformer(recipe, columns)(rows)
        task = self.context.contract["model"]["task"]
        model = Model(folder, {"model": {"task": task, "output": entry["output"]}}, features.shape[1])
        figures = smoke_test.check(
            lambda sent: self._scores(version, entry, sent),
            rows,
            model(features).tolist(),
            probabilities=task == "classification",
            latency_ms_p95=float(parameters["latency_ms_p95"]),
        )
        return figures, {name: values[:1] for name, values in rows.items()}

    def _scores(self, version: str, entry: Entry, rows: smoke_test.Columns) -> list[float]:
        answer = self.server.infer(self.name, version, rows, entry["columns"])
        if answer.version != version:
            raise Refused("smoke_test", f"the server answers with version {answer.version} where {version} was asked")
        return answer.scores

    def _await_switch(self, version: str) -> None:
        """Wait until the server answers by this version where none is named."""
        deadline = time.monotonic() + SWITCHED_S
        while self.server.parameters(self.name, None).get("version") != version:
            if time.monotonic() > deadline:
                raise Refused("smoke_test", f"the server has not switched to {version} in {SWITCHED_S:.0f} s")
            time.sleep(_POLL_S)

    def _confirm(self, version: str, entry: Entry, row: smoke_test.Columns) -> None:
        """See that requests that name no version are answered by this one."""
        self._await_switch(version)
        answer = self.server.infer(self.name, None, row, entry["columns"])
        if answer.version != version:
            raise Refused("smoke_test", f"the server answers by {answer.version} after the switch to {version}")

    def _check_not_revoked(self, version: str) -> None:
        """Refused("revocation") when a key that vouches for a version was revoked since it was promoted."""
        trust, now = Trust(self.context.domain / "trust"), datetime.now(UTC)
        for type_ in ("evidence", "acceptance"):
            issuer = _statement(self.folder.path(self.name, version) / f"{type_}.dsse.json")["issuer"]
            try:
                trust.signing_key(issuer["domain"], issuer["key_id"], at=now)
            except Refused as refusal:
                if refusal.criterion == "revocation":  # a key past its time still vouches for what it signed in time
                    raise


def _model(context: Context) -> dict[str, Any]:
    """What serving.json says of the version beside its place. Refused when the recipe is not the accepted one."""
    folder = context.input / "model"
    evidence, acceptance = (_statement(folder / f"{type_}.dsse.json") for type_ in ("evidence", "acceptance"))
    recipe_digest = acceptance["body"]["recipe_digest"]
    for path in (folder / "recipe.json", context.input / "recipe.json"):
        if path.exists() and digest_of(json.loads(path.read_bytes())) != recipe_digest:
            raise Refused("recipe", f"{path.name} is not the recipe of the data that the model was accepted on")
    return {
        "model_digest": evidence["subject_digest"],
        "recipe_digest": recipe_digest,
        "contract_digest": context.contract_digest,
        "workflow": {key: context.workflow[key] for key in ("id", "vendor", "acceptor", "server")},
        "columns": context.contract["schema"]["columns"],
        "output": {key: context.parameters["output"][key] for key in ("name", "index")},
    }


def _files(folder: Path) -> dict[str, Path]:
    """The files of a served version by their place in its folder; inputs may be links."""
    model = folder / "model"
    found = (Path(top) / name for top, _, names in os.walk(model, followlinks=True) for name in names)
    return {"recipe.json": folder / "recipe.json"} | {path.relative_to(model).as_posix(): path for path in found}


def _statement(path: Path) -> Statement:
    """A statement that the gate, or the server, has verified."""
    try:
        return read(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        raise BadInput(f"{path.name}: no such statement beside the model; run the gate again") from None
