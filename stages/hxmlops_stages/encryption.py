"""Encryption: each part of a release to its own receiver, and the signed protection statement that goes with it.

Reads training.parquet, hidden.parquet, recipe.json and report.json; leaves `<role>/dataset.age` and
`<role>/protection.dsse.json` for the roles training and hidden.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hxmlops_evidence.digests import digest_of, sha256_file
from hxmlops_evidence.gates import line
from hxmlops_evidence.keys import recipient_key_id
from hxmlops_evidence.sequences import next_sequence
from hxmlops_evidence.trust import Trust
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.signing import Signed, issue, read_json, write_envelope


def run(context: Context) -> Outcome:
    """Encrypt to the pinned recipients. Refused("recipient") when a receiver has no valid encryption key here."""
    now = datetime.now(UTC)
    sequence = next_sequence(context.domain, line("protection", context.workflow["id"]))
    signed = [
        _protect(context, role, receiver, sequence, now) for role, receiver in context.parameters["recipients"].items()
    ]
    return Outcome(
        " and ".join(f"{each.statement['body']['role']} part for {each.statement['audience']}" for each in signed),
        metrics={
            each.statement["body"]["role"]: {
                "audience": each.statement["audience"],
                "version": each.statement["body"]["version"],
                "rows": each.statement["body"]["statistics"]["rows"],
                "ciphertext_digest": each.statement["body"]["ciphertext_digest"],
            }
            for each in signed
        },
        valid_until=min(each.statement["expires_at"] for each in signed),
    )


def _protect(context: Context, role: str, receiver: str, sequence: int, now: datetime) -> Signed:
    """Encrypt one part and sign what it is. Both parts of a release have one sequence number."""
    import pyrage

    recipe, report = (read_json(context.input / f"{name}.json") for name in ("recipe", "report"))
    plaintext, folder = context.input / f"{role}.parquet", context.output / role
    recipient = Trust(context.domain / "trust").recipient(receiver, at=now)
    folder.mkdir()
    pyrage.encrypt_file(str(plaintext), str(folder / "dataset.age"), [pyrage.x25519.Recipient.from_str(recipient)])
    plaintext_digest = sha256_file(plaintext)
    body: dict[str, Any] = {
        "name": dataset_name(context.workflow["id"], role),
        "version": f"{context.workflow['version']}.{sequence}",
        "role": role,
        "ciphertext_digest": sha256_file(folder / "dataset.age"),
        "plaintext_digest": plaintext_digest,
        "recipient_key_id": recipient_key_id(recipient),
        "recipe": recipe,
        "recipe_digest": digest_of(recipe),
        "schema_columns": report["schema_columns"],
        "report": report[role]["report"],
        "statistics": report[role]["statistics"],
        "stages": context.stages_so_far,
    }
    signed = issue(
        context,
        "protection",
        audience=receiver,
        subject_digest=plaintext_digest,
        inputs={f"{role}.parquet": plaintext_digest, "recipe.json": sha256_file(context.input / "recipe.json")},
        sequence=sequence,
        body=body,
        issued_at=now,
    )
    write_envelope(folder / "protection.dsse.json", signed.envelope)
    context.say(f"{role} part encrypted to {receiver}")
    return signed


def dataset_name(workflow_id: str, role: str) -> str:
    return workflow_id if role == "training" else f"{workflow_id}-{role}"
