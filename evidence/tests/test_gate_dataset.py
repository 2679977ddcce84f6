"""The gates on a dataset, before and after it is decrypted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import keys, statements
from hxmlops_evidence.digests import sha256_bytes
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.gates import gate_dataset, gate_plaintext
from hxmlops_evidence.sequences import record_sequence

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTRACT = sha256_bytes(b"contract")
ROWS, ENCRYPTED = b"PAR1 rows", b"age-encryption.org/v1 rows"


def names(criteria: list[dict[str, Any]]) -> set[str]:
    assert all(each["passed"] for each in criteria)
    return {each["criterion"] for each in criteria}


def says(gate: Callable[..., Any], *arguments: Any, **changed: Any) -> str:
    with pytest.raises(Refused) as caught:
        gate(*arguments, **changed)
    return str(caught.value)


@pytest.fixture
def protection(world: Any, example: Callable[[str], Any]) -> Callable[..., statements.Envelope]:
    """A release signed by its owner; keywords change its body, `statement` the arguments of `make`."""

    def make(statement: dict[str, Any] | None = None, signer: str = "mno-production", **body: Any) -> Any:
        recipient = keys.load_recipient(world.folder / "software-vendor" / "keys" / "encryption.age")
        body = example("protection")["body"] | {
            "ciphertext_digest": sha256_bytes(ENCRYPTED),
            "plaintext_digest": sha256_bytes(ROWS),
            "recipient_key_id": keys.recipient_key_id(recipient),
            **body,
        }
        made = world.statement(
            "protection", "mno-production", "software-vendor", sha256_bytes(ROWS), body, **(statement or {})
        )
        return world.sign(made, signer)

    return make


@pytest.fixture
def gate_on_dataset(world: Any, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "dataset.age").write_bytes(ENCRYPTED)

    def call(protection: statements.Envelope, **changed: Any) -> Any:
        recipient = keys.load_recipient(world.folder / "software-vendor" / "keys" / "encryption.age")
        arguments: dict[str, Any] = {
            "ciphertext": tmp_path / "dataset.age",
            "protection": protection,
            "trust": world.trust,
            "domain": tmp_path / "domain",
            "owner": "mno-production",
            "role": "training",
            "workflow_id": "churn",
            "audience": "software-vendor",
            "contract_digest": CONTRACT,
            "recipient_key_id": keys.recipient_key_id(recipient),
            "now": NOW,
        }
        return gate_dataset(**{**arguments, **changed})

    return call


def test_a_dataset_for_us_passes(gate_on_dataset: Any, protection: Any) -> None:
    passed = names(gate_on_dataset(protection()))
    assert {"signature", "expiry", "sequence", "role", "recipient", "digests", "recipe"} <= passed


def test_a_flipped_byte_in_the_dataset_is_refused(gate_on_dataset: Any, protection: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset.age").write_bytes(ENCRYPTED[:-1] + b"x")
    assert says(gate_on_dataset, protection()).startswith("digests: the dataset's file is not the one")


def test_the_hidden_rows_are_not_training_rows(gate_on_dataset: Any, protection: Any) -> None:
    assert says(gate_on_dataset, protection(role="hidden")).startswith(
        "role: the dataset of mno-production is for hidden"
    )


def test_a_dataset_encrypted_to_another_key_is_refused(gate_on_dataset: Any, protection: Any) -> None:
    other = protection(recipient_key_id=sha256_bytes(b"other"))
    assert says(gate_on_dataset, other).startswith("recipient: the dataset is encrypted to another key than ours")


def test_a_recipe_that_is_not_its_digests_is_refused(gate_on_dataset: Any, protection: Any) -> None:
    assert says(gate_on_dataset, protection(recipe_digest=sha256_bytes(b"other"))).startswith("recipe: ")


def test_a_dataset_signed_by_somebody_else_is_refused(gate_on_dataset: Any, protection: Any) -> None:
    assert says(gate_on_dataset, protection(signer="software-vendor")).startswith("signature: ")


def test_a_dataset_for_somebody_else_is_refused(gate_on_dataset: Any, protection: Any) -> None:
    assert says(gate_on_dataset, protection({"audience": "mno-staging"})).startswith("audience: ")


def test_an_expired_dataset_is_refused(gate_on_dataset: Any, protection: Any) -> None:
    assert says(gate_on_dataset, protection(), now=NOW + timedelta(days=31)).startswith("expiry: ")


def test_a_replayed_dataset_is_refused(gate_on_dataset: Any, protection: Any, tmp_path: Path) -> None:
    record_sequence(
        tmp_path / "domain",
        issuer="mno-production",
        line="protection/churn",
        sequence=2,
        statement_digest=sha256_bytes(b"newer"),
    )
    assert says(gate_on_dataset, protection()).startswith("sequence: protection/churn 1 of mno-production is older")


def test_the_decrypted_rows_are_those_that_were_signed(protection: Any, tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(ROWS)
    assert names(gate_plaintext(plaintext=tmp_path / "data.parquet", protection=protection())) == {"plaintext"}
    (tmp_path / "data.parquet").write_bytes(ROWS + b"x")
    refusal = says(gate_plaintext, plaintext=tmp_path / "data.parquet", protection=protection())
    assert refusal.startswith("plaintext: the decrypted dataset is not the one")
