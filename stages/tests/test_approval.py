"""A person's approval, and the serving domain's gate, which asks for it and for the acceptor's verdict."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hxmlops_evidence import keys, statements
from hxmlops_evidence.digests import canonical, digest_of, files_digest, sha256_file
from hxmlops_evidence.files import write_private
from hxmlops_evidence.statements import read, statement_digest
from hxmlops_evidence.trust import import_card
from hxmlops_stages.approval import approvals

from .samples import RECIPE
from .worlds import Accepted, assert_refused, done


def pinned(at: Accepted, name: str) -> Path:
    return at.world.production.folder / "trust" / f"{name}.json"


def sign_approval(at: Accepted, person: str, key_of: str, **changes: Any) -> Path:
    """An approval of the accepted model made by other means than the stage, where the gate looks for approvals."""
    acceptance = json.loads(at.verdict.read_bytes())
    verdict, digest = read(acceptance), statement_digest(acceptance)
    body = {"acceptance_digest": digest, "artifact_digest": verdict["body"]["artifact_digest"]}
    statement = statements.make(
        "approval",
        workflow_id=at.world.workflow["id"],
        contract_digest=digest_of(at.world.contract),
        run_id="run-1",
        issuer={"party": "operator", "domain": "mno-production"},
        audience="mno-production",
        subject_digest=verdict["subject_digest"],
        inputs={},
        sequence=1,
        body=body | {"target_domain": "mno-production", "person": person},
        **({"valid_days": 30} | changes),
    )
    key = keys.load_signing_key(at.world.production.folder / "people" / f"{key_of}.pem")
    kept = approvals(at.world.production.folder, digest) / f"{person}.dsse.json"
    write_private(kept, canonical(statements.sign(statement, key)))
    return kept


LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

# Approving


def test_an_approval_names_acceptance_artifact_target_and_person(accepted: Accepted) -> None:
    ran = done(accepted.world.approve(accepted.verdict))

    statement = read(ran.read("approval.dsse.json"))
    acceptance = json.loads(accepted.verdict.read_bytes())
    assert statement["body"] == {
        "acceptance_digest": statement_digest(acceptance),
        "artifact_digest": sha256_file(accepted.tar),
        "target_domain": "mno-production",
        "person": "grace",
    }
    key = keys.load_signing_key(accepted.world.production.folder / "people" / "grace.pem")
    assert statement["issuer"]["key_id"] == keys.key_id(key.public_key())
    assert ran.result["facts"] == {"hxmlops_approval": statement_digest(ran.read("approval.dsse.json"))}


def test_approving_again_changes_nothing(accepted: Accepted) -> None:
    first = done(accepted.world.approve(accepted.verdict)).read("approval.dsse.json")
    again = done(accepted.world.approve(accepted.verdict))

    assert again.read("approval.dsse.json") == first
    assert again.result["changed"] is False


def test_an_expired_approval_is_made_anew(accepted: Accepted) -> None:
    expired = sign_approval(accepted, "grace", "grace", issued_at=LONG_AGO)

    ran = done(accepted.world.approve(accepted.verdict))

    assert ran.result["changed"] is True
    assert json.loads(expired.read_bytes()) == ran.read("approval.dsse.json")


def test_the_proposer_cannot_approve(accepted: Accepted) -> None:
    assert_refused(accepted.world.approve(accepted.verdict, person="ada"), "approver", "ada proposed")


def test_the_proposers_key_cannot_approve_under_another_name(accepted: Accepted) -> None:
    people = accepted.world.production.folder / "people"
    shutil.copyfile(people / "ada.pem", people / "grace.pem")

    assert_refused(accepted.world.approve(accepted.verdict), "approver", "another person must approve it")


def test_a_person_whose_key_is_not_pinned_cannot_approve(accepted: Accepted) -> None:
    pinned(accepted, "grace").unlink()

    assert_refused(accepted.world.approve(accepted.verdict), "signature", "grace is not pinned here")
    assert not (accepted.world.production.folder / "approvals").exists()


def test_a_rejected_model_cannot_be_approved(accepted: Accepted) -> None:
    rejected = done(accepted.world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auc": 0.99}))

    ran = accepted.world.approve(rejected.output / "acceptance.dsse.json")

    assert_refused(ran, "decision", "was rejected; only an accepted model can be approved")


def test_a_verdict_of_a_stranger_cannot_be_approved(accepted: Accepted) -> None:
    pin = pinned(accepted, "mno-staging")
    pin.write_text(pinned(accepted, "software-vendor").read_text().replace("software-vendor", "mno-staging"))

    assert_refused(accepted.world.approve(accepted.verdict), "signature", "mno-staging")


# The gate of the domain that serves


def test_an_approved_model_passes_with_all_that_serving_needs(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))

    ran = done(accepted.world.gate_promotion(accepted.tar, accepted.verdict))

    assert ran.read("recipe.json") == RECIPE
    assert ran.read("model/acceptance.dsse.json") == json.loads(accepted.verdict.read_bytes())
    assert ran.read("model/evidence.dsse.json") == json.loads(accepted.evidence.read_bytes())
    made, served = accepted.world.folder / "made" / "model", ran.output / "model"
    assert sha256_file(served / "model.onnx") == files_digest(made)[0]["model.onnx"]
    criteria = {each["criterion"] for each in ran.read("criteria.json")["criteria"]}
    assert criteria >= {"signature", "members", "decision", "artifact", "approver", "target", "recipe"}


def test_the_second_time_is_no_news(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    assert done(accepted.world.gate_promotion(accepted.tar, accepted.verdict)).result["changed"] is True
    assert done(accepted.world.gate_promotion(accepted.tar, accepted.verdict)).result["changed"] is False


def test_without_an_approval_the_gate_says_who_has_to_do_what(accepted: Accepted) -> None:
    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    model = f"{accepted.world.workflow['id']} 1.0.1"
    assert_refused(
        ran,
        "approval",
        f"no approval of {model} for mno-production: a person other than ada runs "
        "`ansible-playbook playbooks/approve_model.yml -e hxmlops_approver=NAME`",
    )


def test_an_approval_of_another_acceptance_does_not_count(accepted: Accepted) -> None:
    """A verdict that was renewed asks for an approval that knows of it."""
    done(accepted.world.approve(accepted.verdict))
    renewed = done(accepted.world.accept(accepted.gate, accepted.hidden, valid_days=31))

    ran = accepted.world.gate_promotion(accepted.tar, renewed.output / "acceptance.dsse.json")

    assert_refused(ran, "approval", "no approval of")


def test_an_approval_moved_to_another_acceptance_is_refused(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    renewed = done(accepted.world.accept(accepted.gate, accepted.hidden, valid_days=31))
    approvals = accepted.world.production.folder / "approvals"
    [old] = approvals.iterdir()
    digest = statement_digest(renewed.read("acceptance.dsse.json")).removeprefix("sha256:")
    old.rename(approvals / digest)

    ran = accepted.world.gate_promotion(accepted.tar, renewed.output / "acceptance.dsse.json")

    assert_refused(ran, "acceptance", "grace approved another acceptance than this one")


def test_an_acceptance_of_another_artifact_is_refused(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    other = done(accepted.world.sign_model(accepted.protection, valid_days=60)).output / "model.tar"

    ran = accepted.world.gate_promotion(other, accepted.verdict)

    assert_refused(ran, "artifact", "mno-staging accepted another artifact than this one")


def test_a_byte_flipped_in_the_accepted_model_is_refused(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    tar = accepted.world.folder / "flipped.tar"
    data = bytearray(accepted.tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)

    assert_refused(accepted.world.gate_promotion(tar, accepted.verdict), "artifact", "accepted another artifact")


def test_a_rejected_model_is_refused(accepted: Accepted) -> None:
    rejected = done(accepted.world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auc": 0.99}))

    ran = accepted.world.gate_promotion(accepted.tar, rejected.output / "acceptance.dsse.json")

    assert_refused(ran, "decision", "mno-staging did not accept this model")


def test_an_approval_by_the_proposer_is_refused_although_it_is_signed(accepted: Accepted) -> None:
    """The program that approves is no gate: production checks again."""
    sign_approval(accepted, "ada", "ada")

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    assert_refused(ran, "approver", "ada proposed this model")


def test_the_proposer_with_another_key_is_still_the_proposer(accepted: Accepted) -> None:
    production = accepted.world.production.folder
    (production / "people" / "ada.pem").unlink()
    card = keys.make_person(production / "people", party="operator", person="ada")
    import_card(production / "trust", card, card["fingerprint"])
    sign_approval(accepted, "ada", "ada")

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    assert_refused(ran, "approver", "ada proposed this model")


def test_the_proposers_key_under_another_name_is_refused(accepted: Accepted) -> None:
    pinned(accepted, "grace").write_text(pinned(accepted, "ada").read_text().replace('"ada"', '"grace"'))
    sign_approval(accepted, "grace", "ada")

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    assert_refused(ran, "approver", "grace proposed this model")


def test_an_expired_approval_is_refused(accepted: Accepted) -> None:
    sign_approval(accepted, "grace", "grace", issued_at=LONG_AGO)

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    assert_refused(ran, "expiry", "approval by grace expired at 2026-01-31")


def test_an_approval_for_another_domain_is_refused(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict, target_domain="mno-production-2"))

    assert_refused(
        accepted.world.gate_promotion(accepted.tar, accepted.verdict),
        "audience",
        "is meant for mno-production-2, not mno-production",
    )


def test_a_person_whose_key_was_revoked_no_longer_counts(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    done(accepted.world.gate_promotion(accepted.tar, accepted.verdict))
    pin = json.loads(pinned(accepted, "grace").read_text())
    pin["keys"][0]["revoked_at"] = "2026-01-01T00:00:00Z"
    pinned(accepted, "grace").write_text(json.dumps(pin))

    assert_refused(accepted.world.gate_promotion(accepted.tar, accepted.verdict), "revocation", "was revoked")


def test_one_good_approval_is_enough_beside_a_bad_one(accepted: Accepted) -> None:
    people = accepted.world.production.folder / "people"
    card = keys.make_person(people, party="operator", person="alan")
    import_card(accepted.world.production.folder / "trust", card, card["fingerprint"])
    done(accepted.world.approve(accepted.verdict, person="alan"))
    done(accepted.world.approve(accepted.verdict))
    pinned(accepted, "alan").unlink()

    done(accepted.world.gate_promotion(accepted.tar, accepted.verdict))


def test_a_recipe_that_is_not_the_accepted_one_is_refused(accepted: Accepted) -> None:
    done(accepted.world.approve(accepted.verdict))
    recipe = accepted.world.folder / "other.json"
    recipe.write_text(json.dumps(RECIPE | {"drop": []}))

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict, recipe)

    assert_refused(ran, "recipe", "recipe.json is not the one of")


def test_a_replayed_acceptance_is_refused(accepted: Accepted) -> None:
    renewed = done(accepted.world.accept(accepted.gate, accepted.hidden, valid_days=31)).output / "acceptance.dsse.json"
    for verdict in (accepted.verdict, renewed):
        done(accepted.world.approve(verdict))
    done(accepted.world.gate_promotion(accepted.tar, renewed))

    ran = accepted.world.gate_promotion(accepted.tar, accepted.verdict)

    assert_refused(ran, "sequence", "is older than 2, the last accepted")


def test_an_acceptance_for_another_domain_is_refused(accepted: Accepted) -> None:
    elsewhere = accepted.world.under(server="rival-production")
    verdict = done(elsewhere.accept(accepted.gate, accepted.hidden)).output / "acceptance.dsse.json"

    ran = accepted.world.gate_promotion(accepted.tar, verdict)

    assert_refused(ran, "audience", "is meant for rival-production, not mno-production")
