"""Encryption of a release: each part for one receiver, with the signed statement of how it is protected."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from hxmlops_evidence import keys
from hxmlops_evidence.digests import digest_of, sha256_file
from hxmlops_evidence.statements import read

from .samples import RECIPE, REPORT, energy_record
from .worlds import World, assert_refused, done


def opened(file: Path, domain: Path) -> bytes:
    """Decrypt with a domain's key."""
    identity = pyrage.x25519.Identity.from_str((domain / "keys" / "encryption.age").read_text().strip())
    return bytes(pyrage.decrypt(file.read_bytes(), [identity]))


def test_each_part_opens_with_its_receivers_key_alone(world: World) -> None:
    encrypted = done(world.encrypt())

    for role, receiver, other in (("training", world.vendor, world.staging), ("hidden", world.staging, world.vendor)):
        file = encrypted.output / role / "dataset.age"
        plaintext = (world.folder / "released" / f"{role}.parquet").read_bytes()
        assert opened(file, receiver.folder) == plaintext
        with pytest.raises(pyrage.DecryptError):
            opened(file, other.folder)
        assert sorted(path.name for path in file.parent.iterdir()) == ["dataset.age", "protection.dsse.json"]


def test_the_statement_binds_bytes_recipient_recipe_and_report(world: World) -> None:
    encrypted = done(world.encrypt())

    statement = read(encrypted.read("hidden/protection.dsse.json"))
    body = statement["body"]
    plaintext = sha256_file(world.folder / "released" / "hidden.parquet")
    recipient = keys.load_recipient(world.staging.folder / "keys" / "encryption.age")
    assert (statement["audience"], statement["subject_digest"]) == ("mno-staging", plaintext)
    assert (body["name"], body["version"], body["role"]) == (f"{world.workflow['id']}-hidden", "1.0.1", "hidden")
    assert body["ciphertext_digest"] == sha256_file(encrypted.output / "hidden" / "dataset.age")
    assert body["recipient_key_id"] == keys.recipient_key_id(recipient)
    assert (body["recipe"], body["recipe_digest"]) == (RECIPE, digest_of(RECIPE))
    assert {name: body[name] for name in ("report", "statistics")} == REPORT["hidden"]
    assert body["schema_columns"] == REPORT["schema_columns"]
    assert [record["stage"] for record in body["stages"]] == ["anonymization"]
    assert encrypted.result["valid_until"] == statement["expires_at"]


def test_a_later_release_has_a_higher_sequence(world: World) -> None:
    done(world.encrypt())
    later = done(world.encrypt(records=[energy_record("anonymization"), energy_record("anonymization")]))

    statements = [read(later.read(f"{role}/protection.dsse.json")) for role in ("training", "hidden")]
    assert [each["sequence"] for each in statements] == [2, 2]
    assert {each["body"]["version"] for each in statements} == {"1.0.2"}


def test_a_receiver_without_a_valid_key_gets_nothing(world: World) -> None:
    pin = world.production.folder / "trust" / "mno-staging.json"
    pinned = json.loads(pin.read_text())
    for key in pinned["keys"]:
        key["revoked_at"] = "2026-01-01T00:00:00Z"
    pin.write_text(json.dumps(pinned))

    ran = world.encrypt()

    assert_refused(ran, "recipient", "no valid encryption key of mno-staging is pinned")


def test_a_disk_that_is_full_halfway(world: World) -> None:
    """A limit on the size of files stands for it: the system says no in the same place."""
    stage = done(world.encrypt()).output.parent
    training = world.folder / "released" / "training.parquet"
    training.write_bytes(os.urandom(1 << 20))

    ran = subprocess.run(
        [
            *(sys.executable, "-m", "hxmlops_stages", "encryption"),
            *(f"--{name}={stage / file}" for name, file in (("spec", "spec.json"), ("input", "input"))),
            *(f"--output={stage / 'output'}", f"--domain={world.production.folder}", "--run-id=r", "--location=FI"),
        ],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 4
    assert ran.stderr == "encryption: a file is larger than the limit on file sizes (ulimit -f)\n"
    assert json.loads((stage / "result.json").read_text())["status"] == "out_of_resources"
    assert not list((stage / "output").iterdir())
