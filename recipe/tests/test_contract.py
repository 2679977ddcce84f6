"""A contract is read as it stands in a workflow file, or refused in one line that says what and where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hxmlops_recipe.contract import Contract

Changed = Callable[..., dict[str, Any]]
CHURN = Path(__file__).parents[2] / "workflows/churn/workflow.yml"


def test_the_parts_of_a_contract(contract: Changed) -> None:
    read = Contract.from_mapping(contract())
    assert read.schema.subject == "subscriber"
    assert read.schema.columns["tenure"].unit == "d"
    assert read.released == ("state", "tenure", "plan", "device", "roaming", "minutes", "left")
    assert read.protection.sensitive["left"].l == 2
    assert list(read.model.features) == ["state", "tenure", "plan", "device", "roaming", "minutes"]


def test_a_level_becomes_a_rule_and_a_coarser_hierarchy_may_name_groups_of_the_finer_one(contract: Changed) -> None:
    ladders = Contract.from_mapping(contract()).protection.quasi_identifiers
    assert [(level.name, level.rule) for level in ladders["state"].levels] == [
        ("value", {"keep": True}),
        ("division", {"map": {"CA": "Pacific", "OR": "Pacific", "UT": "Mountain", "NV": "Mountain"}}),
        ("region", {"map": {"CA": "West", "OR": "West", "UT": "West", "NV": "West"}}),
        ("all", {"all": True}),
    ]
    assert [level.rule for level in ladders["tenure"].levels] == [{"bin": 50}, {"bin": 100}, {"all": True}]


def test_the_churn_example_is_a_contract() -> None:
    read = Contract.from_mapping(yaml.safe_load(CHURN.read_text())["contract"])
    states = read.protection.quasi_identifiers["state"].levels
    assert len(read.schema.columns) == 21
    assert [len(set(level.rule["map"].values())) for level in states if "map" in level.rule] == [9, 4]
    assert all(len(level.rule["map"]) == 51 for level in states if "map" in level.rule)


STATE = "recipe.quasi_identifiers.state"
MISTAKES: dict[str, dict[str, Any]] = {
    "contract.recipe.kk: unknown key (did you mean k?)": {"recipe.kk": 5},
    "contract.recipe.colour: unknown key (known: drop, quasi_identifiers, k,": {"recipe.colour": 5},
    "contract.recipe.k: is missing": {"recipe.k": None},
    "contract.recipe.k: must be an integer of at least 2": {"recipe.k": 1},
    "contract.recipe.suppression_limit: must be at least 0 and below 1": {"recipe.suppression_limit": 2},
    "contract.recipe.hidden_share: must be a number, not a text": {"recipe.hidden_share": "a fifth"},
    "contract.recipe: must be a mapping, not a list": {"recipe": []},
    "contract.recipe.drop: must contain the subject subscriber": {"recipe.drop": ["minutes"]},
    "contract.recipe.drop: cannot contain the target left": {"recipe.drop": ["subscriber", "left"]},
    "contract.recipe.drop: 'minute' is not a column of the schema (did you mean minutes?)": {
        "recipe.drop": ["subscriber", "minute"]
    },
    "contract.recipe.quasi_identifiers: name at least one column": {"recipe.quasi_identifiers": {}},
    "contract.recipe.quasi_identifiers.stat: 'stat' is not a column of the schema (did you mean state?)": {
        "recipe.quasi_identifiers.stat": {"levels": ["all"]}
    },
    "contract.recipe.quasi_identifiers.left: is the target": {"recipe.quasi_identifiers.left": {"levels": ["all"]}},
    f"contract.{STATE}.levels: 'regio' is neither a width of bins nor one of value, all, division, region": {
        f"{STATE}.levels": ["regio"]
    },
    f"contract.{STATE}.levels: a string has no bins": {f"{STATE}.levels": [50]},
    f"contract.{STATE}.hierarchy.region: is not among the levels": {f"{STATE}.levels": ["division"]},
    f"contract.{STATE}.hierarchy.division.Mountain: CA is in Pacific as well": {
        f"{STATE}.hierarchy.division": {"Pacific": ["CA"], "Mountain": ["CA"]}
    },
    f"contract.{STATE}.hierarchy.division.Canada: False must be a string; quote it": {
        f"{STATE}.hierarchy.division": {"Canada": [False]}
    },
    "contract.recipe.quasi_identifiers.tenure.levels: 0.5 is no width": {
        "recipe.quasi_identifiers.tenure.levels": [0.5]
    },
    "contract.recipe.quasi_identifiers.tenure.levels: 50 stands there twice": {
        "recipe.quasi_identifiers.tenure.levels": [50, 50]
    },
    "contract.recipe.quasi_identifiers.plan.hierarchy.tier: plus of the schema's values is in no group": {
        "recipe.quasi_identifiers.plan": {"levels": ["tier"], "hierarchy": {"tier": {"low": ["basic"]}}}
    },
    "contract.recipe.sensitive.left.l: left has only 2 values": {"recipe.sensitive.left.l": 3},
    "contract.recipe.sensitive.left.t: must be above 0 and at most 1": {"recipe.sensitive.left.t": 0},
    "contract.recipe.sensitive.device: a sensitive column cannot be nullable": {"recipe.sensitive.device": {"l": 2}},
    "contract.recipe.sensitive.state: is a quasi-identifier": {"recipe.sensitive.state": {"l": 2}},
    "contract.schema.subject: 'id' is not a column of the schema": {"schema.subject": "id"},
    "contract.schema.columns.subscriber.nullable: the subject cannot be missing": {
        "schema.columns.subscriber.nullable": True
    },
    "contract.schema.columns.plan.type: 'str' is not one of integer, number, string, boolean (did you": {
        "schema.columns.plan.type": "str"
    },
    "contract.schema.columns.plan.values: False is not of type string (quote it in YAML": {
        "schema.columns.plan.values": [False, True]
    },
    "contract.schema.columns.plan.minimum: has no meaning for a string": {"schema.columns.plan.minimum": 1},
    "contract.schema.columns.state.pattern: is not a regular expression": {"schema.columns.state.pattern": "["},
    "contract.schema.columns.tenure.minimum: is above the maximum": {"schema.columns.tenure.maximum": -1},
    "contract.schema.columns.pseudonym: this name is kept": {"schema.columns.pseudonym": {"type": "string"}},
    "contract.model.features.subscriber: is dropped": {"model.features.subscriber": "one_hot"},
    "contract.model.features.left: is the target": {"model.features.left": "one_hot"},
    "contract.model.features.plan: is released as a string; use one_hot": {"model.features.plan": "number"},
    "contract.model.features.minutes: a number has no categories; use number": {"model.features.minutes": "one_hot"},
    "contract.model.task: regression needs a numeric target": {"model.task": "regression"},
    "contract.model.metrics: 'auc' is not one of roc_auc": {"model.metrics": ["auc"]},
    "contract.model.output.positive: is not among the values of left": {"model.output.positive": True},
    "contract.model.output.positive: is missing": {"model.output.positive": None},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_told_in_one_line(contract: Changed, message: str) -> None:
    with pytest.raises(ValueError, match=r"^contract") as caught:
        Contract.from_mapping(contract(**MISTAKES[message]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_too_many_combinations_of_levels_are_refused(contract: Changed) -> None:
    columns = {f"c{number}": {"type": "integer"} for number in range(6)}
    ladders = {name: {"levels": [1, 2, 3, 4, 5, 6]} for name in columns}
    wide = contract(**{"recipe.quasi_identifiers": ladders})
    wide["schema"]["columns"] |= columns
    with pytest.raises(ValueError, match=r"46656 combinations"):
        Contract.from_mapping(wide)
