"""A version is loaded only as it was accepted, by keys that are still trusted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence.digests import digest_of
from hxmlops_model_server.serving import read
from hxmlops_model_server.testing import RECIPE, Parties, Serving, pin_with, tiny_model
from hxmlops_model_server.verification import Content, Unfit, verified

ONNX = tiny_model(0.0)


def verify(serving: Serving) -> Content:
    return verified(read(serving.folder)["churn"].versions["1.0.1"], serving.parties.trust)


def test_what_was_accepted_is_given_as_the_bytes_that_were_verified(serving: Serving) -> None:
    serving.add("1.0.1", ONNX)
    assert verify(serving) == Content(ONNX, RECIPE)


def test_a_flipped_byte_in_the_model(serving: Serving) -> None:
    model = serving.add("1.0.1", ONNX) / "model.onnx"
    model.write_bytes(ONNX[:-1] + bytes([ONNX[-1] ^ 1]))
    with pytest.raises(Unfit, match=r"^the digest of model.onnx is not the one that was accepted$"):
        verify(serving)


def test_a_recipe_of_other_groups(serving: Serving) -> None:
    recipe = serving.add("1.0.1", ONNX) / "recipe.json"
    recipe.write_text(recipe.read_text().replace("East", "West"))
    with pytest.raises(Unfit, match=r"^the digest of recipe.json is not the one that was accepted$"):
        verify(serving)


@pytest.mark.parametrize("name", ["model.onnx", "recipe.json", "evidence.dsse.json", "acceptance.dsse.json"])
def test_a_missing_file(serving: Serving, name: str) -> None:
    (serving.add("1.0.1", ONNX) / name).unlink()
    with pytest.raises(Unfit, match=f"^{name} cannot be read: No such file"):
        verify(serving)


def test_a_statement_that_is_no_json(serving: Serving) -> None:
    (serving.add("1.0.1", ONNX) / "evidence.dsse.json").write_text("{")
    with pytest.raises(Unfit, match=r"^evidence.dsse.json is not a JSON object$"):
        verify(serving)


def test_an_altered_statement(serving: Serving) -> None:
    path = serving.add("1.0.1", ONNX) / "acceptance.dsse.json"
    envelope = json.loads(path.read_text())
    other = json.loads(serving.parties.sign("acceptance", digest_of("another model"), {}))
    path.write_text(json.dumps({**envelope, "payload": other["payload"]}))
    with pytest.raises(Unfit, match=r"^signature: .* was altered"):
        verify(serving)


def test_a_statement_by_another_domains_key(serving: Serving) -> None:
    serving.add("1.0.1", ONNX, evidence_by="staging")
    with pytest.raises(Unfit, match=r"^signature: .* not pinned"):
        verify(serving)


def test_a_key_that_was_revoked_since(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "serving", Parties(tmp_path / "parties"))
    serving.add("1.0.1", ONNX, issued_at=datetime.now(UTC) - timedelta(days=2))
    assert verify(serving).onnx == ONNX
    pin_with(serving.parties.trust, "vendor", "revoked_at")
    with pytest.raises(Unfit, match=r"^revocation: key .* of vendor was revoked"):
        verify(serving)


def test_a_key_past_its_time_still_vouches_for_what_it_signed_in_its_time(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "serving", Parties(tmp_path / "parties"))
    serving.add("1.0.1", ONNX, issued_at=datetime.now(UTC) - timedelta(days=2))
    pin_with(serving.parties.trust, "vendor", "not_after")
    assert verify(serving).onnx == ONNX


def test_an_acceptance_that_has_expired_since_is_logged_and_does_not_stop_the_version(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.add("1.0.1", ONNX, issued_at=datetime.now(UTC) - timedelta(days=31))
    assert verify(serving).onnx == ONNX
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["statement"]) for line in lines] == [
        ("statement_expired", "evidence"),
        ("statement_expired", "acceptance"),
    ]


def test_a_model_that_was_rejected(serving: Serving) -> None:
    serving.add("1.0.1", ONNX, decision="rejected")
    with pytest.raises(Unfit, match=r"^its acceptance says rejected$"):
        verify(serving)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"model_digest": digest_of("another")}, "its evidence, its acceptance and serving.json name different models"),
        ({"recipe_digest": digest_of("another")}, "the digest of recipe.json is not the one"),
        ({"contract_digest": digest_of("another")}, "contract: "),
        (
            {"workflow": {"id": "other", "vendor": "vendor", "acceptor": "staging", "server": "production"}},
            "workflow: ",
        ),
        ({"workflow": {"id": "churn", "vendor": "vendor", "acceptor": "staging", "server": "lab"}}, "audience: "),
        ({"model": "churn/1.0.1/recipe.json"}, "recipe.json is not among the files that were accepted"),
    ],
)
def test_a_listing_that_says_otherwise_than_the_statements(serving: Serving, entry: Any, reason: str) -> None:
    serving.add("1.0.1", ONNX, entry=entry)
    with pytest.raises(Unfit, match=f"^{reason}"):
        verify(serving)


def test_statements_of_another_version_in_its_folder(serving: Serving) -> None:
    first, second = serving.add("1.0.0", ONNX), serving.add("1.0.1", ONNX)
    (second / "acceptance.dsse.json").write_bytes((first / "acceptance.dsse.json").read_bytes())
    with pytest.raises(Unfit, match=r"^its acceptance is for another name or version$"):
        verify(serving)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not of the form"),
        ('{"schema_version": "2.0", "models": {}}', "too old"),
        ('{"schema_version": "1.0", "models": {"m": {"current": "1", "previous": null, "versions": {}}}}', "not among"),
    ],
)
def test_a_damaged_serving_json(serving: Serving, text: str, reason: str) -> None:
    (serving.folder / "serving.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read(serving.folder)


def test_a_path_out_of_the_serving_folder(serving: Serving) -> None:
    serving.add("1.0.1", ONNX, entry={"model": "../model.onnx"})
    with pytest.raises(ValueError, match="leads out"):
        read(serving.folder)
