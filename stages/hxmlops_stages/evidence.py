"""Evidence: how the model was made, its bill of materials, the signature over all of it, and the tar of it all.

Reads model/, report.json (testing), metrics.json and code/ (training) and protection.dsse.json; leaves model/ (the
model's files, evidence.json, bom.cdx.json, model.sig), model.tar and evidence.dsse.json.
"""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from hxmlops_evidence.artifact import pack
from hxmlops_evidence.bom import BOM, make_bom
from hxmlops_evidence.digests import digest_of, files_digest, sha256_bytes, sha256_file
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.gates import EVIDENCE, NOT_CONTENT, line
from hxmlops_evidence.sequences import next_sequence
from hxmlops_evidence.signature import sign_folder
from hxmlops_stages.program import Context, Outcome, digests
from hxmlops_stages.signing import Signed, issue, read_json, relied_on, write_envelope

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "skl2onnx", "tensorflow", "torch")


def run(context: Context) -> Outcome:
    """Sign the model for the acceptor. BadInput when its files bear names that are kept for ours."""
    model, now = context.output / "model", datetime.now(UTC)
    shutil.copytree(context.input / "model", model)
    files, content_digest = files_digest(model)
    if taken := files.keys() & set(NOT_CONTENT):
        raise BadInput(f"model/{min(taken)}: this name is kept for what the stage adds; rename the file")
    protection = relied_on(
        context, read_json(context.input / "protection.dsse.json"), "protection", context.workflow["owner"]
    )
    sequence = next_sequence(context.domain, line("evidence", context.workflow["id"]))
    version = f"{context.workflow['version']}.{sequence}"

    bom = _bom(context, version, files, protection, now)
    write_atomic(model / BOM, bom)
    context.say("bill of materials made")
    evidence = issue(
        context,
        "evidence",
        audience=context.workflow["acceptor"],
        subject_digest=content_digest,
        inputs={
            "protection.dsse.json": protection.digest,
            "report.json": sha256_file(context.input / "report.json"),
            "metrics.json": sha256_file(context.input / "metrics.json"),
        },
        sequence=sequence,
        body=_body(context, version, files, sha256_bytes(bom), protection),
        issued_at=now,
    )
    write_envelope(model / EVIDENCE, evidence.envelope)
    write_envelope(context.output / "evidence.dsse.json", evidence.envelope)
    sign_folder(model, context.domain / "keys" / "signing.pem")
    artifact = pack(model, context.output / "model.tar")
    return Outcome(
        f"{context.workflow['id']} {version} signed for {context.workflow['acceptor']}",
        metrics={"version": version, "artifact_digest": artifact, "model_digest": content_digest},
        valid_until=evidence.statement["expires_at"],
    )


def _body(context: Context, version: str, files: dict[str, str], bom_digest: str, protection: Signed) -> dict[str, Any]:
    parameters = context.parameters
    return {
        "name": context.workflow["id"],
        "version": version,
        "format": context.contract["model"]["format"],
        "files": files,
        "bom_digest": bom_digest,
        "metrics": read_json(context.input / "report.json")["metrics"],
        "dataset": _dataset(protection),
        "training": {
            "code_digest": digest_of(digests(context.input / "code")),
            "parameters_digest": digest_of(parameters["training"]),
            "lock_digest": parameters["lock_digest"],
            "sandboxed": parameters["sandboxed"],
        },
        "stages": context.stages_so_far,
    }


def _dataset(protection: Signed) -> dict[str, str]:
    body = protection.statement["body"]
    return {
        "statement_digest": protection.digest,
        **{name: body[name] for name in ("ciphertext_digest", "plaintext_digest", "recipe_digest")},
    }


def _bom(context: Context, version: str, files: dict[str, str], protection: Signed, now: datetime) -> bytes:
    training = context.parameters["training"]
    return make_bom(
        name=context.workflow["id"],
        version=version,
        files=files,
        parameters={**training["parameters"], "seed": training["seed"], "holdout_share": training["holdout_share"]},
        metrics=read_json(context.input / "report.json")["metrics"],
        dataset=_dataset(protection),
        intended_use=context.parameters["intended_use"],
        libraries=_libraries(),
        timestamp=now,
    )


def _libraries() -> dict[str, str]:
    """Versions of those libraries, of the kind that make models, that are installed here."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
