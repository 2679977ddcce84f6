"""A recipe makes the same columns of a table and of a request's rows."""

import math
import threading
from collections.abc import Callable
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_recipe.contract import Contract
from hxmlops_recipe.recipe import RowTransformer, apply, features, make, open_categories, released_columns

Changed = Callable[..., dict[str, Any]]
Recipe = dict[str, Any]
Columns = dict[str, dict[str, Any]]

DIVISION = {"map": {"CA": "Pacific", "OR": "Pacific", "UT": "Mountain", "NV": "Mountain"}}
ROWS: dict[str, Any] = {
    "subscriber": ["a", "b", "c"],
    "state": ["CA", "NV", "NY"],
    "tenure": [0, 49, 151],
    "plan": ["basic", "plus", "plus"],
    "device": ["phone", None, "watch"],
    "roaming": [True, None, False],
    "minutes": [1.5, None, 0.0],
    "left": ["no", "yes", "no"],
}


@pytest.fixture
def columns(contract: Changed) -> Columns:
    found: Columns = contract()["schema"]["columns"]
    return found


@pytest.fixture
def recipe(contract: Changed) -> Recipe:
    levels: dict[str, Recipe] = {"state": DIVISION, "tenure": {"bin": 50}}
    return make(Contract.from_mapping(contract()), levels, {"device": ["phone", "tablet"]})


def test_raw_columns_become_released_columns(recipe: Recipe) -> None:
    released = apply(ibis.memtable(pa.table(ROWS)), recipe)
    assert released.to_pyarrow().to_pydict() == {
        "state": ["Pacific", "Mountain", None],  # no group has NY
        "tenure": [0, 0, 150],
        "plan": ["basic", "plus", "plus"],
        "device": ["phone", None, "watch"],
        "roaming": [True, None, False],
        "minutes": [1.5, None, 0.0],
        "left": ["no", "yes", "no"],
    }


def test_released_columns_become_float32_features_in_the_recipes_order(recipe: Recipe) -> None:
    table = features(apply(ibis.memtable(pa.table(ROWS)), recipe), recipe)
    assert {str(kind) for kind in table.schema().types} == {"float32"}
    rows = table.to_pyarrow().to_pylist()
    assert rows[0] == {
        "state=Mountain": 0,
        "state=Pacific": 1,
        "tenure": 0,
        "plan=basic": 1,
        "plan=plus": 0,
        "device=phone": 1,
        "device=tablet": 0,
        "roaming": 1,
        "minutes": 1.5,
    }
    unknown = rows[2]
    assert (unknown["state=Mountain"], unknown["state=Pacific"]) == (0, 0)
    assert (unknown["device=phone"], unknown["device=tablet"]) == (0, 0)
    assert math.isnan(rows[1]["minutes"])
    assert math.isnan(rows[1]["roaming"])


def test_a_column_generalised_to_all_is_released_as_a_star_and_makes_no_feature(contract: Changed) -> None:
    recipe = make(Contract.from_mapping(contract()), {"state": {"all": True}, "tenure": {"all": True}}, {"device": []})
    assert not {"state", "tenure"} & {feature["column"] for feature in recipe["features"]}
    released = apply(ibis.memtable(pa.table(ROWS)), recipe).to_pyarrow().to_pydict()
    assert released["tenure"] == ["*", "*", "*"]


def test_only_undeclared_categories_are_looked_up_in_the_data(contract: Changed) -> None:
    read = Contract.from_mapping(contract())
    assert open_categories(read, {"state": DIVISION}) == ["device"]
    assert open_categories(read, {"state": {"keep": True}}) == ["state", "device"]


def test_declarations_of_released_columns(recipe: Recipe, columns: Columns) -> None:
    released = released_columns(recipe, columns)
    assert list(released) == ["state", "tenure", "plan", "device", "roaming", "minutes", "left"]
    assert released["state"] == {"type": "string", "values": ["Mountain", "Pacific"]}
    assert released["tenure"] == {"type": "integer", "unit": "d", "minimum": 0}
    assert released["device"] == {"type": "string", "nullable": True}


def test_a_pseudonym_passes_only_if_the_recipe_says_so(recipe: Recipe, columns: Columns) -> None:
    table = ibis.memtable(pa.table({**ROWS, "pseudonym": ["f0", "f1", "f2"]}))
    assert "pseudonym" not in apply(table, recipe).columns
    assert apply(table, recipe | {"pseudonym": True}).columns[0] == "pseudonym"
    assert "pseudonym" in released_columns(recipe | {"pseudonym": True}, columns)


def test_a_request_needs_only_the_columns_that_features_use(recipe: Recipe, columns: Columns) -> None:
    request = {name: values for name, values in ROWS.items() if name not in ("subscriber", "left")}
    answer = RowTransformer(recipe, columns)(request)
    assert answer.dtype == np.float32
    assert answer.shape == (3, 9)


def test_an_empty_request_is_answered_with_no_rows(recipe: Recipe, columns: Columns) -> None:
    assert RowTransformer(recipe, columns)({name: [] for name in ROWS}).shape == (0, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": None}, "column plan: missing"),
        ({"plam": ["x"]}, r"column plam: unknown \(did you mean plan\?\)"),
        ({"tenure": ["1", "2", "3"]}, "column tenure: not a list of values of type integer"),
        ({"tenure": [1, 2, 2.5]}, "column tenure: not a list of values of type integer"),
        ({"tenure": [1, 2, 2**70]}, "column tenure: not a list of values of type integer"),
        ({"tenure": [True, False, True]}, "column tenure: not a list of values of type integer"),
        ({"minutes": ["a", "b", "c"]}, "column minutes: not a list of values of type number"),
        ({"minutes": 5}, "column minutes: not a list of values of type number"),
        ({"plan": [1, 2, 3]}, "column plan: not a list of values of type string"),
        ({"plan": [b"\xff", b"", b""]}, "column plan: not a list of values of type string"),
        ({"roaming": [1, 0, 1]}, "column roaming: not a list of values of type boolean"),
        ({"plan": ["basic", None, "plus"]}, "column plan: a value is missing"),
        ({"plan": ["basic"]}, "columns: of different lengths, 1 to 3 rows"),
    ],
)
def test_a_wrong_request_is_refused(recipe: Recipe, columns: Columns, change: Recipe, message: str) -> None:
    request = {name: values for name, values in (ROWS | change).items() if values is not None}
    with pytest.raises(ValueError, match=f"^{message}$"):
        RowTransformer(recipe, columns)(request)


def test_whole_numbers_and_bytes_are_taken_for_integers_and_strings(recipe: Recipe, columns: Columns) -> None:
    transform = RowTransformer(recipe, columns)
    as_sent = ROWS | {"tenure": np.array([0.0, 49.0, 151.0]), "plan": [b"basic", b"plus", b"plus"]}
    np.testing.assert_array_equal(transform(as_sent), transform(ROWS))


def test_a_recipe_for_another_schema_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"^recipe: its column"):
        RowTransformer(recipe, {"other": {"type": "string"}})


def test_many_threads_use_one_transformer(recipe: Recipe, columns: Columns) -> None:
    transform = RowTransformer(recipe, columns)
    wrong: list[int] = []

    def work(tenure: int) -> None:
        for _ in range(20):
            answer = transform(ROWS | {"tenure": [tenure] * 3})
            if answer[0, 2] != tenure // 50 * 50:
                wrong.append(tenure)

    threads = [threading.Thread(target=work, args=(tenure,)) for tenure in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


RAW = st.fixed_dictionaries(
    {
        "subscriber": st.just("s"),
        "state": st.sampled_from(["CA", "OR", "UT", "NV", "NY"]),
        "tenure": st.integers(-(2**40), 2**40),
        "plan": st.sampled_from(["basic", "plus", "gold", 'it\'s "quoted"']),
        "device": optional(st.text(max_size=5)),
        "roaming": optional(st.booleans()),
        "minutes": optional(st.floats(-1e6, 1e6)),
        "left": st.sampled_from(["no", "yes"]),
    }
)
ARROW = {"integer": pa.int64(), "number": pa.float64(), "string": pa.string(), "boolean": pa.bool_()}


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(RAW, min_size=1, max_size=8), width=st.sampled_from([1, 7, 50]), coarse=st.booleans())
def test_a_request_gets_the_features_that_the_table_gets(rows: list[Recipe], width: int, coarse: bool) -> None:
    columns: Columns = {
        "subscriber": {"type": "string"},
        "state": {"type": "string"},
        "tenure": {"type": "integer"},
        "plan": {"type": "string"},
        "device": {"type": "string", "nullable": True},
        "roaming": {"type": "boolean", "nullable": True},
        "minutes": {"type": "number", "nullable": True},
        "left": {"type": "string"},
    }
    recipe: Recipe = {
        "pseudonym": False,
        "columns": {name: {"keep": True} for name in columns if name != "subscriber"}
        | {"tenure": {"bin": width}, "state": DIVISION if coarse else {"keep": True}},
        "features": [
            {"name": "state=CA", "column": "state", "equals": "CA"},
            {"name": "state=Pacific", "column": "state", "equals": "Pacific"},
            {"name": "plan='", "column": "plan", "equals": 'it\'s "quoted"'},
            {"name": "device=a", "column": "device", "equals": "a"},
            {"name": "tenure", "column": "tenure"},
            {"name": "roaming", "column": "roaming"},
            {"name": "minutes", "column": "minutes"},
        ],
    }
    lists = {name: [row[name] for row in rows] for name in columns}
    arrays = {name: pa.array(lists[name], ARROW[about["type"]]) for name, about in columns.items()}
    table = features(apply(ibis.memtable(pa.table(arrays)), recipe), recipe).to_pyarrow()
    expected = np.column_stack([table[name].to_numpy() for name in table.column_names])
    np.testing.assert_array_equal(RowTransformer(recipe, columns)(lists), expected)
