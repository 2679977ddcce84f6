"""Stage anonymization: the finest release of a table that keeps the contract's limits.

1. Each subject is put into the training or the hidden part by HMAC(split key, subject), in every version into the same.
2. Over the training part, the finest generalisation is searched that holds k, l and t within the suppression limit
   (`hxmlops_stages.anonymity`). Subjects of earlier releases (`<domain>/releases/`, the private/lineage.parquet of
   each) are judged jointly: who shares the classes, old and new, with fewer than k - 1 others is suppressed.
3. The recipe so found is applied to both parts. Rows are ordered by the subject's pseudonym, HMAC(key of this line and
   recipient, subject), which is then dropped unless the contract keeps it. From the hidden part no row is suppressed.
4. The figures in report.json are measured on the files that were written, and checked again.

The same input and keys give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import make_private_folder, write_atomic
from hxmlops_evidence.keys import read_secret
from hxmlops_recipe.contract import PSEUDONYM, Contract
from hxmlops_recipe.recipe import apply, make, open_categories, released_columns
from hxmlops_stages.anonymity import Choice, Limits, find
from hxmlops_stages.cells import Counted, lineage, measure, ordered, unique_share
from hxmlops_stages.keyed_hashes import below, derive, with_hmac
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.table_statistics import describe, rounded

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database

CLAIM = (
    "k-anonymous over the declared quasi-identifiers; pseudonymised personal data, "
    "not anonymous in the sense of the GDPR"
)
HIDDEN_CLAIM = (
    "generalised like the training part with no row suppressed, hence not k-anonymous; pseudonymised personal data, "
    "not anonymous in the sense of the GDPR"
)
_HIDDEN = "hxmlops_hidden"


def run(context: Context) -> Outcome:
    """Refused("k_anonymity") when the limits cannot be kept, Refused("hierarchy") for a value without a group."""
    from hxmlops_recipe.tables import database

    contract = Contract.from_mapping(context.contract)
    output = context.output
    with database(output.parent / "scratch") as tables:
        people = _people(tables, context, contract)
        _check_hierarchies(tables, people, contract)
        training, hidden = people.filter(~people[_HIDDEN]), people.filter(people[_HIDDEN])
        earlier = sorted(context.releases.glob("*.parquet"))
        counted = Counted(tables, training, contract, earlier)
        protection = contract.protection
        limits = Limits(protection.k, protection.sensitive, ordered(contract), protection.suppression_limit)
        choice, tried = find(counted.cells, counted.ladders, limits)
        if not choice.holds:
            raise Refused("k_anonymity", _why_not(choice, contract, joint=bool(earlier)))
        context.say(f"{_words(choice)} after {tried} combinations")
        released = counted.rows_of(choice)
        recipe = _recipe(tables, released, choice, contract)
        _write(tables, released, recipe, output / "training.parquet")
        _write(tables, hidden, recipe, output / "hidden.parquet")
        make_private_folder(output / "private")
        tables.write_parquet(lineage(released), output / "private/lineage.parquet")
        part = _part(tables, output / "training.parquet", choice, counted, contract)
        joint = {"earlier_releases": len(earlier), "subjects": counted.known_subjects, "k": choice.joint_k}
        report = {
            "schema_columns": released_columns(recipe, context.contract["schema"]["columns"]),
            "training": part | {"report": part["report"] | {"joint": joint}},
            "hidden": _part(tables, output / "hidden.parquet", choice, None, contract),
        }
    _check(report["training"]["report"])
    for name, value in (("recipe.json", recipe), ("report.json", report)):
        write_atomic(output / name, json.dumps(value, indent=1).encode())
    return _outcome(report, choice)


def _people(tables: Database, context: Context, contract: Contract) -> ir.Table:
    """The raw rows with their part and pseudonym, computed once, without the columns that are dropped."""
    secret = read_secret(context.domain / "keys/pseudonym.key")
    line = context.workflow["id"]
    subject = contract.schema.subject
    raw = tables.read_parquet(context.input / "data.parquet").select(subject, *contract.released)
    split = with_hmac(tables, raw, _HIDDEN, subject, read_secret(context.domain / "keys/split.key"))
    split = split.mutate((split[_HIDDEN][:13] < below(contract.protection.hidden_share)).name(_HIDDEN))
    keys = {
        part: derive(secret, "pseudonym", line, context.workflow[recipient])
        for part, recipient in ((False, "vendor"), (True, "acceptor"))
    }
    people = tables.keep("people", with_hmac(tables, split, PSEUDONYM, subject, keys, by=_HIDDEN).drop(subject))
    found = tables.rows(people.aggregate(hidden=people[_HIDDEN].sum(), total=people.count()))[0]
    if not 0 < (found["hidden"] or 0) < found["total"]:
        reason = f"all of {found['total']} rows are in one part: give more rows, or change contract.recipe.hidden_share"
        raise Refused("split", reason)
    return people


def _check_hierarchies(tables: Database, people: ir.Table, contract: Contract) -> None:
    """Every value, hidden ones too, must have a group in every hierarchy of its column."""
    strays = {}
    for name, ladder in contract.protection.quasi_identifiers.items():
        for level in ladder.levels:
            if "map" in level.rule:
                stray = people[name].cast("string").notin(list(level.rule["map"]))
                strays[f"{name}.hierarchy.{level.name}"] = stray.sum()
    counts = tables.rows(people.aggregate(**strays))[0] if strays else {}
    for path, count in counts.items():
        if count:
            reason = f"contract.recipe.quasi_identifiers.{path}: has no group for the values of {count} rows; add these"
            raise Refused("hierarchy", reason)


def _recipe(tables: Database, released: ir.Table, choice: Choice, contract: Contract) -> dict[str, Any]:
    levels = choice.rules
    unknown = open_categories(contract, levels)
    table = apply(released, make(contract, levels, {name: [] for name in unknown}))
    seen = {}
    for name in unknown:
        values = table.filter(table[name].notnull()).select(name).distinct().order_by(name)
        seen[name] = [row[name] for row in tables.rows(values)]
    recipe = make(contract, levels, seen)
    if not recipe["features"]:
        raise Refused("k_anonymity", f"no feature is left, for {_words(choice)}; {_CHANGE}")
    return recipe


def _write(tables: Database, people: ir.Table, recipe: dict[str, Any], file: Path) -> None:
    """Write the released columns in the order of pseudonyms: it has nothing to do with the order of the raw rows."""
    table = apply(people, recipe | {"pseudonym": True}).order_by(PSEUDONYM)
    tables.write_parquet(table if recipe["pseudonym"] else table.drop(PSEUDONYM), file)


def _part(tables: Database, file: Path, choice: Choice, counted: Counted | None, contract: Contract) -> dict[str, Any]:
    """Protection report and statistics of a written part; `counted` is None for the hidden one."""
    protection = contract.protection
    table = tables.read_parquet(file)
    statistics = describe(tables, table, at_least=protection.k)
    reached = measure(tables, table, contract)
    rows_in = int(counted.cells.rows.sum()) if counted else statistics["rows"]
    suppressed = rows_in - statistics["rows"]
    sensitive: dict[str, dict[str, float]] = {}
    for name, limit in protection.sensitive.items():
        sensitive[name] = {"l_reached": reached.l[name], "t_reached": rounded(reached.t[name])}
        if counted and limit.l is not None:
            sensitive[name]["l_required"] = limit.l
        if counted and limit.t is not None:
            sensitive[name]["t_required"] = limit.t
    report = {
        "claim": CLAIM if counted else HIDDEN_CLAIM,
        "quasi_identifiers": {name: step.level.name for name, step in choice.steps.items()},
        "k": {"required": protection.k if counted else 1, "reached": reached.k},
        "sensitive": sensitive,
        "classes": reached.classes,
        "rows_in": rows_in,
        "rows_suppressed": suppressed,
        "suppression_share": rounded(suppressed / rows_in),
        "suppression_limit": protection.suppression_limit,
        "information_loss": {name: rounded(step.loss) for name, step in choice.steps.items()},
        "unique_share_all_columns": rounded(unique_share(tables, table)),
    }
    return {"report": report, "statistics": statistics}


def _check(report: dict[str, Any]) -> None:
    """The limits once more, on what was measured: nothing leaves on the word of the search alone."""
    held = report["k"]["reached"] >= report["k"]["required"]
    held &= report["suppression_share"] <= report["suppression_limit"]
    for reached in report["sensitive"].values():
        held &= reached["l_reached"] >= reached.get("l_required", 0)
        held &= reached["t_reached"] <= reached.get("t_required", 1)
    if not held:
        raise Refused("k_anonymity", "the written file does not hold what the search found; report this as a bug")


_CHANGE = "raise suppression_limit, lower k or l, raise t, or add a coarser level in contract.recipe"


def _why_not(choice: Choice, contract: Contract, *, joint: bool) -> str:
    protection = contract.protection
    limits = [f"k = {protection.k}"]
    for name, limit in protection.sensitive.items():
        limits += [f"{letter} = {value} of {name}" for letter, value in (("l", limit.l), ("t", limit.t)) if value]
    together = ", judged together with earlier releases," if joint else ""
    return (
        f"{', '.join(limits)}{together} cannot be kept by suppressing at most {protection.suppression_limit:.2%} of "
        f"rows; the best, {_words(choice)}, suppresses {choice.suppression_share:.2%}: {_CHANGE}"
    )


def _words(choice: Choice) -> str:
    return ", ".join(f"{name} by {step.level.name}" for name, step in choice.steps.items())


def _outcome(report: dict[str, Any], choice: Choice) -> Outcome:
    training, hidden = report["training"], report["hidden"]
    rows, facts = training["statistics"]["rows"], training["report"]
    return Outcome(
        f"{rows} rows released, {facts['rows_suppressed']} suppressed, k = {facts['k']['reached']}: {_words(choice)}",
        {
            "rows_released": rows,
            "rows_suppressed": facts["rows_suppressed"],
            "rows_hidden": hidden["statistics"]["rows"],
            "k": facts["k"]["reached"],
        },
    )
