"""The train.py of each use case, run by the stages on its own data: it learns, and the same twice."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hxmlops_evidence.digests import files_digest
from hxmlops_recipe import recipe as recipes
from hxmlops_recipe.contract import Contract
from hxmlops_recipe.tables import database, typed
from hxmlops_stages import metrics, testing, training
from hxmlops_stages.program import Context

PROJECT = Path(__file__).parents[2]


@dataclass
class UseCase:
    """A workflow file and the folders of its two stages; `levels` picks a step of each quasi-identifier's ladder."""

    file: Path
    levels: dict[str, int]
    folder: Path

    def __post_init__(self) -> None:
        self.workflow = yaml.safe_load(self.file.read_text())
        self.contract = self.workflow["contract"]

    def release(self) -> None:
        """Put released rows, the recipe and the code into the training stage's input, the order of rows kept."""
        contract = Contract.from_mapping(self.contract)
        ladders = contract.protection.quasi_identifiers
        rules = {name: ladders[name].levels[level].rule for name, level in self.levels.items()}
        recipe = {**recipes.make(contract, rules, {}), "pseudonym": False}
        data = self.file.parent / self.workflow["domains"]["mno-production"]["data"]
        code = self.folder / "training" / "input" / "code"
        code.mkdir(parents=True)
        (code / "train.py").write_bytes((self.file.parent / "train.py").read_bytes())
        with database(self.folder / "scratch") as tables:
            texts = tables.read_texts(data, contract.schema.columns)
            raw = texts.select(**typed(texts, contract.schema.columns))
            tables.write_parquet(recipes.apply(raw, recipe), self.folder / "training" / "input" / "data.parquet")
        (self.folder / "training" / "input" / "recipe.json").write_text(json.dumps(recipe))

    def train(self, output: str) -> Path:
        part = self.workflow["domains"]["software-vendor"]
        context = self._context("training", part, self.folder / "training" / "input", output)
        training.run(context)
        return context.output

    def test(self, trained: Path) -> dict[str, metrics.Bounds]:
        given = self.folder / "testing" / "input"
        given.mkdir(parents=True)
        (given / "model").symlink_to(trained / "model")
        (given / "data.parquet").symlink_to(trained / "holdout.parquet")
        (given / "recipe.json").symlink_to(self.folder / "training" / "input" / "recipe.json")
        context = self._context("testing", {}, given, "output")
        testing.run(context)
        found: dict[str, metrics.Bounds] = json.loads((context.output / "report.json").read_text())["metrics"]
        return found

    def _context(self, stage: str, parameters: dict[str, Any], given: Path, output: str) -> Context:
        made = self.folder / stage / output
        made.mkdir(parents=True)
        spec = {"stage": stage, "contract": self.contract, "parameters": parameters}
        return Context(spec, given, made, self.folder / "domain", "run-1", "NO")


def test_churn(tmp_path: Path) -> None:
    churn = UseCase(
        PROJECT / "workflows" / "churn" / "workflow.yml", {"state": 1, "area_code": 0, "account_length": 0}, tmp_path
    )
    churn.release()
    found = churn.test(churn.train("output"))
    assert 0.87 < found["roc_auc"]["lower"] < found["roc_auc"]["value"] < found["roc_auc"]["upper"] < 0.97
    assert found["brier"]["upper"] < 0.09


def test_own_workflow(tmp_path: Path) -> None:
    """A regression with missing values; and the same bytes when it runs again."""
    own = UseCase(
        PROJECT / "tests" / "own_workflow" / "workflow.yml", {"region": 0, "distance_m": 1, "indoor": 0}, tmp_path
    )
    own.release()
    trained, again = own.train("output"), own.train("again")
    assert files_digest(trained) == files_digest(again)
    found = own.test(trained)
    thresholds = own.workflow["domains"]["mno-staging"]["thresholds"]
    assert all(metrics.meets(name, found[name], threshold) for name, threshold in thresholds.items())


def test_own_workflows_data_comes_from_its_generator(tmp_path: Path) -> None:
    folder = PROJECT / "tests" / "own_workflow"
    runpy.run_path(str(folder / "make_data.py"))["main"](tmp_path / "sessions.csv")
    assert (tmp_path / "sessions.csv").read_bytes() == (folder / "sessions.csv").read_bytes()
