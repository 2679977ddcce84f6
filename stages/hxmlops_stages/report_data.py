"""The report's figures and findings, from energy records and statements.

A domain's own stages are taken from its own records; those of others as they declare them in their signed
statements, and marked so. Bounds of a sum are the sums of bounds: nothing is assumed to even out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hxmlops_evidence.trust import parse_time

SUMMED = (
    "cpu_s",
    "wall_s",
    "energy_j",
    "energy_j_lower",
    "energy_j_upper",
    "co2e_g",
    "co2e_g_lower",
    "co2e_g_upper",
)
_ROLES = {"owner": "data owner", "vendor": "vendor", "acceptor": "acceptor", "server": "server"}

type Report = dict[str, Any]
type Stage = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A statement that this domain holds: its own, or one whose signature was verified."""

    statement: dict[str, Any]
    digest: str
    own: bool

    @property
    def issuer(self) -> str:
        return str(self.statement["issuer"]["domain"])

    @property
    def body(self) -> dict[str, Any]:
        return dict(self.statement["body"])

    @property
    def name(self) -> str:
        """Its type, or "hidden protection"."""
        hidden = self.statement["type"] == "protection" and self.body["role"] == "hidden"
        return "hidden protection" if hidden else str(self.statement["type"])


def build(
    workflow: Mapping[str, Any],
    domain: str,
    records: Iterable[Stage],
    statements: Sequence[Seen],
    *,
    current: Mapping[str, str] | None = None,
    raw_data_digest: str | None = None,
    gates: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Report:
    """The report, for JSON. Of several statements of one kind that with the highest sequence counts."""
    seen = {one.name: one for one in sorted(statements, key=lambda one: int(one.statement["sequence"]))}
    evidence, acceptance = seen.get("evidence"), seen.get("acceptance")
    model = evidence or acceptance
    order = list(dict.fromkeys(str(workflow[role]) for role in _ROLES))
    stages = _stages(domain, records, statements, order)
    total = _sum(stages)
    promoted = bool(current and model and current["version"] == model.body["version"])
    return {
        "schema_version": "1.0",
        "workflow": dict(workflow),
        "domain": domain,
        "model": {key: model.body[key] for key in ("name", "version")} if model else None,
        "current": dict(current) if current else None,
        "verdicts": _verdicts(workflow, seen, current),
        "stages": stages,
        "rows": _rows(stages),
        "domains": _domains(workflow, domain, stages, order),
        "total": total,
        "sci": _sci(total) if promoted else None,
        "intensities": _intensities(stages),
        "metrics": _metrics(evidence),
        "gates": _gates(domain, acceptance, gates or {}),
        "chain": _chain(workflow, seen, current, raw_data_digest),
        "privacy": _privacy(seen.get("protection") or seen.get("hidden protection")),
    }


def _stages(domain: str, records: Iterable[Stage], statements: Sequence[Seen], order: list[str]) -> list[Stage]:
    """Every attempt once, by domain and time. What a peer did after it signed is not known here."""
    found = {(domain, one["stage"], one["attempt_id"]): {**one, "domain": domain, "declared": False} for one in records}
    for seen in statements:
        where = {"domain": seen.issuer, "declared": not seen.own, "run_id": seen.statement["run_id"]}
        for one in seen.body.get("stages", []):
            found.setdefault((seen.issuer, one["stage"], one["attempt_id"]), {**one, **where})
    return sorted(
        found.values(),
        key=lambda one: (order.index(one["domain"]), parse_time(one["started_at"]), one["attempt_id"]),
    )


def _sum(stages: Sequence[Stage]) -> dict[str, Any]:
    methods = {one["method"] for one in stages} | {"declared" for one in stages if one["declared"]}
    return {
        **{key: round(sum(one[key] for one in stages), 9) for key in SUMMED},
        "attempts": len(stages),
        "failed": sum(one["status"] != "done" for one in stages),
        "methods": sorted(methods),
    }


def _rows(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """One row for each stage of a domain, all its attempts together, in the order in which they first started."""
    grouped: dict[tuple[str, str], list[Stage]] = {}
    for one in stages:
        grouped.setdefault((one["domain"], one["stage"]), []).append(one)
    return [
        {"domain": domain, "stage": stage, "status": attempts[-1]["status"], **_sum(attempts)}
        for (domain, stage), attempts in grouped.items()
    ]


def _domains(workflow: Mapping[str, Any], own: str, stages: Sequence[Stage], order: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "domain": name,
            "roles": [title for role, title in _ROLES.items() if workflow[role] == name],
            "own": name == own,
            **_sum([one for one in stages if one["domain"] == name]),
        }
        for name in order
    ]


def _sci(total: Mapping[str, Any]) -> dict[str, Any]:
    """ISO/IEC 21031 has SCI = (E x I + M) per R. Without an embodied share M it is the operational part only."""
    return {
        "per": "promoted model version",
        "boundary": "operational",
        **{key: total[key] for key in ("co2e_g", "co2e_g_lower", "co2e_g_upper", "methods")},
    }


def _intensities(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    places: dict[tuple[str, float, str], list[str]] = {}
    for one in stages:
        domains = places.setdefault((one["location"], one["intensity_g_per_kwh"], one["intensity_source"]), [])
        if one["domain"] not in domains:
            domains.append(one["domain"])
    return [
        {"location": location, "g_per_kwh": g_per_kwh, "source": source, "domains": domains}
        for (location, g_per_kwh, source), domains in sorted(places.items())
    ]


def _verdicts(
    workflow: Mapping[str, Any], seen: Mapping[str, Seen], current: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """The steps to a served model, each `passed`, `failed` or `pending` (no signed statement seen here)."""

    def step(what: str, by: str, one: Seen | None, text: str, *, passed: bool = True) -> dict[str, Any]:
        state = "pending" if one is None else "passed" if passed else "failed"
        dates = {key: one.statement[key] if one else None for key in ("issued_at", "expires_at")}
        return {"what": what, "by": by, "state": state, "text": text if one else "", **dates}

    protection = seen.get("protection") or seen.get("hidden protection")
    evidence, acceptance, approval = (seen.get(type_) for type_ in ("evidence", "acceptance", "approval"))
    criteria = acceptance.body["criteria"] if acceptance else []
    passed = f"{sum(one['passed'] for one in criteria)} of {len(criteria)} criteria passed"
    accepted = bool(acceptance and acceptance.body["decision"] == "accepted")
    served = {"what": "Served", "by": workflow["server"], "issued_at": None, "expires_at": None}
    return [
        step(
            "Data released",
            workflow["owner"],
            protection,
            f"version {protection.body['version']}" if protection else "",
        ),
        step("Model signed", workflow["vendor"], evidence, f"version {evidence.body['version']}" if evidence else ""),
        step(
            "Accepted" if accepted or not acceptance else "Rejected",
            workflow["acceptor"],
            acceptance,
            passed,
            passed=accepted,
        ),
        step(
            "Approved",
            approval.body["person"] if approval else "a person",
            approval,
            f"for {approval.body['target_domain']}" if approval else "",
        ),
        served
        | (
            {"state": "passed", "text": f"version {current['version']}"}
            if current
            else {"state": "pending", "text": ""}
        ),
    ]


def _metrics(evidence: Seen | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {"by": evidence.issuer, "declared": not evidence.own, "values": evidence.body["metrics"]}


def _gates(domain: str, acceptance: Seen | None, own: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    gates = [{"gate": name, "by": domain, "criteria": criteria} for name, criteria in own.items()]
    if acceptance:
        gates.insert(0, {"gate": "acceptance", "by": acceptance.issuer, "criteria": acceptance.body["criteria"]})
    return gates


def _privacy(protection: Seen | None) -> dict[str, Any] | None:
    if protection is None:
        return None
    recipe, columns = protection.body["recipe"], protection.body["schema_columns"]
    return {
        **protection.body["report"],
        "by": protection.issuer,
        "declared": not protection.own,
        "dropped_columns": recipe["drop"],
        "released_columns": len(columns),
        "pseudonym": recipe["pseudonym"],
    }


def _chain(
    workflow: Mapping[str, Any],
    seen: Mapping[str, Seen],
    current: Mapping[str, str] | None,
    raw_data_digest: str | None,
) -> list[dict[str, Any]]:
    """From raw data to the served model: what was there, its digests, and whether it leads on from what came before.

    `links` are the digests by which a link names an earlier one: `holds` is None where that was not seen here.
    """
    protection, hidden, evidence, acceptance, approval = (
        seen.get(name) for name in ("protection", "hidden protection", "evidence", "acceptance", "approval")
    )
    chain = [_link("Raw data", workflow["owner"], {"data": raw_data_digest} if raw_data_digest else {})]
    for one, title in ((protection, "Training data, released"), (hidden, "Hidden data, released")):
        if one:
            names = ("plaintext_digest", "recipe_digest", "ciphertext_digest")
            chain.append(_link(title, one.issuer, _digests(one, *names)))
    if evidence:
        dataset, training = evidence.body["dataset"], evidence.body["training"]
        chain.append(
            _link(
                "Model",
                evidence.issuer,
                {"model": evidence.statement["subject_digest"], "bill of materials": evidence.body["bom_digest"]}
                | {key.removesuffix("_digest"): training[key] for key in sorted(training) if key != "sandboxed"}
                | {"statement": evidence.digest},
                _same("trained on the released data", dataset["statement_digest"], _digest(protection)),
            )
        )
    if acceptance:
        model = evidence.statement["subject_digest"] if evidence else None
        tested_on = acceptance.body["hidden"]["statement_digest"]
        chain.append(
            _link(
                "Acceptance",
                acceptance.issuer,
                _digests(acceptance, "artifact_digest", "thresholds_digest", "policy_digest", "evaluator_digest"),
                _same("is of this model", acceptance.statement["subject_digest"], model),
                _same("tested on the hidden data", tested_on, _digest(hidden)),
            )
        )
    if approval:
        chain.append(
            _link(
                "Approval",
                approval.body["person"],
                _digests(approval, "artifact_digest"),
                _same("is of this acceptance", approval.body["acceptance_digest"], _digest(acceptance)),
            )
        )
    if current:
        model = evidence.statement["subject_digest"] if evidence else None
        served = {"model": current["model_digest"]}
        chain.append(
            _link("Served", workflow["server"], served, _same("is this model", current["model_digest"], model))
        )
    return chain


def _digests(seen: Seen, *names: str) -> dict[str, str]:
    return {name.removesuffix("_digest"): seen.body[name] for name in names} | {"statement": seen.digest}


def _digest(seen: Seen | None) -> str | None:
    return seen.digest if seen else None


def _same(text: str, digest: str, other: str | None) -> dict[str, Any]:
    return {"text": text, "holds": None if other is None else digest == other}


def _link(title: str, by: str, digests: Mapping[str, str], *links: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "by": by,
        "digests": [{"name": name.replace("_", " "), "digest": digest} for name, digest in digests.items()],
        "links": list(links),
    }
