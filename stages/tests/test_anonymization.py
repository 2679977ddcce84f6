"""anonymization releases what keeps the contract's limits, says what it did, and refuses otherwise."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import random
import shutil
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hxmlops_evidence import validation
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import write_private
from hxmlops_evidence.keys import make_keys, read_secret
from hxmlops_stages import anonymization
from hxmlops_stages.keyed_hashes import derive
from hxmlops_stages.program import Context, Outcome

CONTRACT: dict[str, Any] = {
    "schema": {
        "subject": "subscriber",
        "target": "left",
        "columns": {
            "subscriber": {"type": "string"},
            "state": {"type": "string"},
            "tenure": {"type": "integer", "minimum": 0, "unit": "d"},
            "device": {"type": "string", "nullable": True},
            "minutes": {"type": "number", "minimum": 0},
            "left": {"type": "string", "values": ["no", "yes"]},
        },
    },
    "recipe": {
        "drop": ["subscriber"],
        "quasi_identifiers": {
            "state": {
                "levels": ["value", "division", "all"],
                "hierarchy": {"division": {"Pacific": ["CA", "OR", "WA"], "Mountain": ["UT", "NV"]}},
            },
            "tenure": {"levels": [2, 50, "all"]},
        },
        "sensitive": {"left": {"l": 2, "t": 0.4}},
        "k": 5,
        "suppression_limit": 0.05,
        "hidden_share": 0.25,
    },
    "model": {
        "task": "classification",
        "format": "onnx",
        "features": {"state": "one_hot", "tenure": "number", "device": "one_hot", "minutes": "number"},
        "output": {"name": "probabilities", "index": 1, "positive": "yes"},
        "metrics": ["roc_auc"],
    },
}


def contract(**changes: Any) -> dict[str, Any]:
    """The contract with another value of `recipe`'s keys."""
    changed = copy.deepcopy(CONTRACT)
    changed["recipe"] |= changes
    return changed


def people(count: int = 800, seed: int = 7) -> list[dict[str, Any]]:
    draw = random.Random(seed)  # noqa: S311 - test data
    return [
        {
            "subscriber": f"s{number}",
            "state": draw.choice(["CA", "OR", "WA", "UT", "NV"]),
            "tenure": draw.randrange(100),
            "device": draw.choice(["phone", "watch", None]),
            "minutes": draw.randrange(10**6) / 10,
            "left": draw.choice(["no", "no", "yes"]),
        }
        for number in range(count)
    ]


@dataclass
class Release:
    """What a run left."""

    outcome: Outcome
    output: Path

    def read(self, name: str) -> Any:
        return json.loads((self.output / name).read_bytes())

    def rows(self, part: str = "training") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.output / f"{part}.parquet").to_pylist()
        return found

    @property
    def lineage(self) -> Path:
        return self.output / "private/lineage.parquet"


@dataclass
class Domain:
    """An owner's domain that makes releases of one line."""

    folder: Path
    releases: int = 0

    def release(
        self, rows: list[dict[str, Any]], agreed: dict[str, Any] = CONTRACT, earlier: list[Release] | None = None
    ) -> Release:
        self.releases += 1
        given, made = (self.folder / f"release-{self.releases}" / name for name in ("input", "output"))
        given.mkdir(parents=True)
        made.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), given / "data.parquet")
        shutil.rmtree(self.folder / "domain" / "releases", ignore_errors=True)
        for number, release in enumerate(earlier or []):
            write_private(self.folder / f"domain/releases/churn/1.0.{number}.parquet", release.lineage.read_bytes())
        workflow = {"id": "churn", "vendor": "software-vendor", "acceptor": "mno-staging"}
        spec = {"stage": "anonymization", "workflow": workflow, "contract": agreed, "parameters": {}}
        return Release(anonymization.run(Context(spec, given, made, self.folder / "domain", "run-1", "NO")), made)

    def pseudonym(self, subject: str, recipient: str = "software-vendor") -> str:
        key = derive(read_secret(self.folder / "domain/keys/pseudonym.key"), "pseudonym", "churn", recipient)
        return hmac.new(key, subject.encode(), hashlib.sha256).hexdigest()

    def hidden(self, subject: str, share: float = 0.25) -> bool:
        key = read_secret(self.folder / "domain/keys/split.key")
        return int(hmac.new(key, subject.encode(), hashlib.sha256).hexdigest()[:13], 16) < share * 16**13


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    folder = tmp_path_factory.mktemp("owner")
    make_keys(folder / "domain/keys")
    yield Domain(folder)
    assert not list(folder.glob("*/scratch"))


@pytest.fixture(scope="module")
def release(owner: Domain) -> Release:
    """The release that most tests look at: of `people()` by CONTRACT."""
    return owner.release(people())


def test_the_release_keeps_k_l_and_t_and_the_report_says_so(release: Release) -> None:
    rows = release.rows()
    classes: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in rows:
        classes[row["state"], row["tenure"]].append(row["left"])
    overall = [row["left"] for row in rows].count("yes") / len(rows)
    k = min(len(values) for values in classes.values())
    t = max(abs(values.count("yes") / len(values) - overall) for values in classes.values())
    assert k >= 5
    assert t <= 0.4
    report = release.read("report.json")["training"]["report"]
    assert report["claim"] == (
        "k-anonymous over the declared quasi-identifiers; pseudonymised personal data, "
        "not anonymous in the sense of the GDPR"
    )
    assert report["k"] == {"required": 5, "reached": k}
    assert report["sensitive"]["left"] == {
        "l_required": 2,
        "l_reached": min(len(set(values)) for values in classes.values()),
        "t_required": 0.4,
        "t_reached": pytest.approx(t, rel=1e-5),
    }
    assert report["classes"] == len(classes)
    assert report["rows_in"] - report["rows_suppressed"] == len(rows)
    assert report["suppression_share"] == pytest.approx(report["rows_suppressed"] / report["rows_in"], rel=1e-5)
    assert report["suppression_share"] <= 0.05
    alone = Counter(tuple(row.values()) for row in rows)
    assert report["unique_share_all_columns"] == pytest.approx(
        sum(count == 1 for count in alone.values()) / len(rows), rel=1e-5
    )
    assert release.outcome.metrics["k"] == k


def test_the_report_is_what_a_protection_statement_may_hold(release: Release) -> None:
    report = release.read("report.json")
    for part in ("training", "hidden"):
        for name, definition in (("report", "protection_report"), ("statistics", "statistics")):
            assert_valid(report[part][name], definition)
    for column in report["schema_columns"].values():
        assert_valid(column, "column_type")


def assert_valid(document: Any, definition: str) -> None:
    import jsonschema
    from referencing import Registry, Resource

    folder = Path(validation.__file__).with_name("schemas")
    common = json.loads((folder / "common.schema.json").read_text())
    registry = Registry().with_resource("common.schema.json", Resource.from_contents(common))
    schema = {"$ref": f"common.schema.json#/$defs/{definition}"}
    jsonschema.Draft202012Validator(schema, registry=registry).validate(document)


def test_only_released_columns_leave_made_by_the_recipe(release: Release) -> None:
    recipe = release.read("recipe.json")
    assert recipe["columns"]["state"] == {"keep": True}
    assert recipe["columns"]["tenure"] == {"bin": 50}
    for part in ("training", "hidden"):
        assert list(release.rows(part)[0]) == ["state", "tenure", "device", "minutes", "left"]
        assert {row["tenure"] for row in release.rows(part)} == {0, 50}
    # the categories of `device` are listed nowhere but in the data
    devices = [feature["equals"] for feature in recipe["features"] if feature["column"] == "device"]
    assert devices == ["phone", "watch"]


def test_a_subject_is_hidden_or_not_for_ever(owner: Domain, release: Release) -> None:
    table = people()
    fewer = owner.release(table[100:])
    hidden = {row["minutes"] for row in table if owner.hidden(row["subscriber"])}
    assert {row["minutes"] for row in release.rows("hidden")} == hidden
    assert {row["minutes"] for row in fewer.rows("hidden")} == hidden & {row["minutes"] for row in table[100:]}
    assert not {row["minutes"] for row in release.rows()} & hidden
    assert len(hidden) == pytest.approx(0.25 * 800, abs=50)


def test_the_order_of_rows_is_that_of_pseudonyms_which_are_dropped(owner: Domain, release: Release) -> None:
    pseudonyms = {row["minutes"]: owner.pseudonym(row["subscriber"]) for row in people()}
    order = [pseudonyms[row["minutes"]] for row in release.rows()]
    assert order == sorted(order)


def test_a_pseudonym_for_each_recipient_stays_if_the_contract_wants_it(owner: Domain) -> None:
    table = people()
    subjects = {row["minutes"]: row["subscriber"] for row in table}
    release = owner.release(table, contract(pseudonym=True))
    for part, recipient in (("training", "software-vendor"), ("hidden", "mno-staging")):
        for row in release.rows(part):
            assert row["pseudonym"] == owner.pseudonym(subjects[row["minutes"]], recipient)
    assert "pseudonym" in release.read("report.json")["schema_columns"]


def test_the_same_rows_in_any_order_give_the_same_bytes(owner: Domain, release: Release) -> None:
    table = people()
    again = owner.release(random.Random(1).sample(table, len(table)))  # noqa: S311 - test data
    files = sorted(path.relative_to(release.output) for path in release.output.rglob("*") if path.is_file())
    assert [str(file) for file in files] == [
        "hidden.parquet",
        "private/lineage.parquet",
        "recipe.json",
        "report.json",
        "training.parquet",
    ]
    for file in files:
        assert (release.output / file).read_bytes() == (again.output / file).read_bytes()


def test_the_lineage_stays_private(owner: Domain, release: Release) -> None:
    assert stat.S_IMODE(release.lineage.parent.stat().st_mode) == 0o700
    lineage = pq.read_table(release.lineage).to_pylist()
    assert len(lineage) == len(release.rows())
    assert {row["pseudonym"] for row in lineage} <= {owner.pseudonym(row["subscriber"]) for row in people()}


def test_the_hidden_part_claims_no_k_anonymity(release: Release) -> None:
    report = release.read("report.json")["hidden"]["report"]
    assert "hence not k-anonymous" in report["claim"]
    assert report["rows_suppressed"] == 0


def test_statistics_count_out_no_value_that_fewer_than_k_rows_have(owner: Domain) -> None:
    table = people()
    rare = [row for row in table if not owner.hidden(row["subscriber"])][:3]
    for row in rare:
        row["device"] = "prototype"
    columns = owner.release(table).read("report.json")["training"]["statistics"]["columns"]
    assert set(columns["device"]["counts"]) == {"phone", "watch"}
    assert columns["device"]["distinct"] == 3
    assert set(columns["minutes"]) == {"nulls", "distinct", "mean", "standard_deviation"}


def test_limits_that_cannot_be_kept_are_refused_with_the_best_that_was_found(owner: Domain) -> None:
    agreed = contract(k=300)
    agreed["recipe"]["quasi_identifiers"]["state"]["levels"].remove("all")
    with pytest.raises(Refused) as refused:
        owner.release(people(), agreed)
    assert refused.value.criterion == "k_anonymity"
    start, end = refused.value.reason.split(" suppresses ")  # about 40 % of subjects are in the smaller division
    assert start == (
        "k = 300, l = 2 of left, t = 0.4 of left cannot be kept by suppressing at most 5.00% of rows; "
        "the best, state by division, tenure by all,"
    )
    assert end.endswith("raise suppression_limit, lower k or l, raise t, or add a coarser level in contract.recipe")
    assert not list((owner.folder / f"release-{owner.releases}/output").iterdir())


def test_a_value_without_a_group_is_refused_without_being_shown(owner: Domain) -> None:
    table = people()
    table[5]["state"] = "Atlantis"
    with pytest.raises(Refused, match=r"quasi_identifiers\.state\.hierarchy\.division: has no group") as refused:
        owner.release(table)
    assert "values of 1 rows" in refused.value.reason
    assert "Atlantis" not in refused.value.reason


def test_too_few_rows_for_two_parts_are_refused(owner: Domain) -> None:
    with pytest.raises(Refused, match="all of 1 rows are in one part"):
        owner.release(people(1))


def test_a_numeric_sensitive_column_is_judged_by_distance(owner: Domain) -> None:
    release = owner.release(people(), contract(sensitive={"minutes": {"t": 0.3}}))
    reached = release.read("report.json")["training"]["report"]["sensitive"]["minutes"]
    assert 0 < reached["t_reached"] <= 0.3


def test_a_missing_quasi_identifier_is_a_group_of_its_own(owner: Domain) -> None:
    table = people()
    for row in table[::4]:
        row["tenure"] = None
    agreed = contract()
    agreed["schema"]["columns"]["tenure"]["nullable"] = True
    release = owner.release(table, agreed)
    classes = Counter((row["state"], row["tenure"]) for row in release.rows())
    assert {tenure for _, tenure in classes} == {0, 50, None}
    facts = release.read("report.json")["training"]
    assert facts["report"]["k"]["reached"] == min(classes.values())
    assert facts["statistics"]["columns"]["tenure"]["nulls"] == sum(row["tenure"] is None for row in release.rows())


# Versions of one line.


def test_a_release_of_the_same_rows_again_is_no_more_suppressed(owner: Domain, release: Release) -> None:
    second = owner.release(people(), earlier=[release])
    assert (release.output / "training.parquet").read_bytes() == (second.output / "training.parquet").read_bytes()
    joint = second.read("report.json")["training"]["report"]["joint"]
    assert joint == {"earlier_releases": 1, "subjects": len(release.rows()), "k": joint["k"]}
    assert joint["k"] >= 5


def test_who_moved_between_classes_nearly_alone_is_suppressed(owner: Domain, release: Release) -> None:
    table = people()
    moved = [row for row in table if not owner.hidden(row["subscriber"]) and row["tenure"] < 50][:3]
    for row in moved:
        row["tenure"] += 50
    alone, together = owner.release(table), owner.release(table, earlier=[release])
    assert {row["minutes"] for row in moved} <= {row["minutes"] for row in alone.rows()}
    assert not {row["minutes"] for row in moved} & {row["minutes"] for row in together.rows()}
    report = together.read("report.json")
    assert report["training"]["report"]["rows_suppressed"] == 3
    assert report["training"]["report"]["joint"]["k"] >= 5


def test_many_who_moved_make_the_release_refused(owner: Domain) -> None:
    table = people()
    agreed = contract()
    agreed["recipe"]["quasi_identifiers"] = {"tenure": {"levels": [10]}}
    first = owner.release(table, agreed)
    for row in table:
        row["tenure"] = random.Random(row["subscriber"]).randrange(100)  # noqa: S311 - test data
    with pytest.raises(Refused, match="judged together with earlier releases, cannot be kept"):
        owner.release(table, agreed, earlier=[first])
