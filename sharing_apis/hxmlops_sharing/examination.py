"""What an artifact proves, found out by the gate's own code in a process of its own.

Its files come from strangers and may be as large or as ill-made as they like: whatever they cost or break, the server
goes on. `python -m hxmlops_sharing.examination` takes a job as JSON on standard input and answers with the findings.
"""

import contextlib
import errno
import json
import resource
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hxmlops_evidence.artifact import unpack
from hxmlops_evidence.bom import BOM, check_bom
from hxmlops_evidence.digests import digest_of, files_digest
from hxmlops_evidence.errors import BadInput, Refused, one_line
from hxmlops_evidence.formats import check_model_format
from hxmlops_evidence.gates import EVIDENCE, NOT_CONTENT
from hxmlops_evidence.signature import SIGNATURE, read_document, verify_folder
from hxmlops_evidence.statements import Envelope, Statement, read, statement_digest, verify
from hxmlops_evidence.trust import Trust

CRITERIA = {"model": ("archive", "signature", "evidence", "bom", "format"), "dataset": ("signature", "digests")}

MOST_CPU_S, MOST_MEMORY, MOST_DESCRIPTORS = 900, 8 << 30, 256
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM)
_LONGEST, _MOST = 200, 100  # of texts and lists from an artifact, as far as they are kept

type Findings = dict[str, Any]


def main() -> int:
    """Exit code 0 with findings; 1 with one line on standard error when it is this server that is unfit."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = json.load(sys.stdin)
    try:
        findings = examine_model(job) if job["kind"] == "model" else examine_dataset(job)
    except (BadInput, OSError) as problem:
        print(one_line(str(problem)), file=sys.stderr)
        return 1
    json.dump(findings, sys.stdout)
    return 0


def examine_model(job: Mapping[str, Any]) -> Findings:
    """The job's `file` is a tar, unpacked below `scratch`; `statement` is what its metadata says of it, or None."""
    trust, now, folder = Trust(Path(job["trust"])), datetime.now(UTC), Path(job["scratch"]) / "model"
    findings = _Findings(now)
    with findings.criterion("archive"):
        unpack(Path(job["file"]), folder)
    if not findings.passed("archive"):
        reason = "the archive was refused"
        findings.document["criteria"] += [finding(name, reason) for name in CRITERIA["model"] if name != "archive"]
        return findings.document
    files, signer = files_digest(folder)[0], None
    with findings.criterion("signature"):
        signer = _signer(folder, trust, now)
        findings.document["issuer"] = _issuer(trust, *signer)
    content = {path: digest for path, digest in files.items() if path not in NOT_CONTENT}
    statement = None
    with findings.criterion("evidence"):
        statement = _evidence(folder, trust, content, job["statement"], now)
        if signer is None or (statement["issuer"]["domain"], statement["issuer"]["key_id"]) != signer:
            raise Refused("evidence", f"{EVIDENCE} is not signed by the key that signed the model")
        findings.document["statement"] = _summary(statement)
    with findings.criterion("bom"):
        if BOM not in files:
            raise Refused("bom", f"the model has no {BOM}")
        bom = read_document(folder / BOM)
        if statement and statement["body"]["bom_digest"] != files[BOM]:
            raise Refused("bom", f"{BOM} is not the one of the evidence")
        check_bom(bom, content)
        findings.document["bom"] = _bom_summary(json.loads(bom))
    with findings.criterion("format"):
        allowed = [f"sha256:{digest.removeprefix('sha256:')}" for digest in job["allow_pickles"]]
        check_model_format(folder, allow=job["formats"], allow_pickles=allowed)
        findings.document["format"] = statement["body"]["format"] if statement else job["formats"][0]
    return findings.document


def examine_dataset(job: Mapping[str, Any]) -> Findings:
    """The job's `file` is the data model, `sha256` the dataset's digest; `statement` as for models."""
    trust, now = Trust(Path(job["trust"])), datetime.now(UTC)
    findings = _Findings(now)
    with findings.criterion("signature"):
        try:
            envelope = json.loads(read_document(Path(job["file"])))
        except (ValueError, RecursionError):
            raise Refused("signature", "the data model is not JSON") from None
        statement = _verified(envelope, trust, "protection", now)
        _check_hint(envelope, job["statement"])
        findings.document["issuer"] = dict(statement["issuer"])
        findings.document["statement"] = _summary(statement)
    with findings.criterion("digests"):
        if not findings.passed("signature"):
            raise Refused("digests", "no statement that can be relied on says what the dataset is")
        if statement["body"]["ciphertext_digest"] != job["sha256"]:
            raise Refused("digests", "the dataset is not the one that its data model was signed for")
    return findings.document


class _Findings:
    def __init__(self, now: datetime) -> None:
        self.document: Findings = {"at": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "criteria": []}

    @contextlib.contextmanager
    def criterion(self, name: str) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self.document["criteria"].append(finding(name, refusal.reason))
        except OSError as problem:
            if problem.errno in _OURS:
                raise
            self.document["criteria"].append(finding(name, "has names that no file here can have"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as problem:
            self.document["criteria"].append(finding(name, f"cannot be made sense of: {type(problem).__name__}"))
        else:
            self.document["criteria"].append(finding(name))

    def passed(self, name: str) -> bool:
        return any(each["criterion"] == name and each["passed"] for each in self.document["criteria"])


def unexamined(kind: str, reason: str) -> Findings:
    """Findings about what was not looked into."""
    findings = _Findings(datetime.now(UTC)).document
    findings["criteria"] = [finding(name, reason) for name in CRITERIA[kind]]
    return findings


def finding(criterion: str, problem: str = "") -> dict[str, Any]:
    """How one criterion came out."""
    return {"criterion": criterion, "passed": not problem, "detail": problem[:1000]}


def _signer(folder: Path, trust: Trust, now: datetime) -> tuple[str, str]:
    """Name and key id of the domain whose pinned key signed all files. Refused("signature"), Refused("members")."""
    refused: dict[str, Refused] = {}
    for name, key_id in trust.signing_keys():
        try:
            key = trust.signing_key(name, key_id, at=now)
        except Refused as refusal:
            refused[key_id] = refusal
            continue
        try:
            verify_folder(folder, key)
        except Refused as refusal:
            if refusal.criterion == "members":
                raise
        else:
            return name, key_id
    if not (folder / SIGNATURE).exists():
        raise Refused("signature", f"the model has no {SIGNATURE}")
    named = ""
    with contextlib.suppress(Refused, OSError, ValueError, RecursionError):
        named = read(json.loads(read_document(folder / EVIDENCE)))["issuer"]["key_id"]
    raise refused.get(named, Refused("signature", f"{SIGNATURE} is by no key that is pinned here"))


def _issuer(trust: Trust, name: str, key_id: str) -> dict[str, str]:
    return {"party": trust.party(name), "domain": name, "key_id": key_id}


def _evidence(folder: Path, trust: Trust, content: Mapping[str, str], hint: Any, now: datetime) -> Statement:
    try:
        envelope = json.loads(read_document(folder / EVIDENCE))
    except FileNotFoundError:
        raise Refused("evidence", f"the model has no {EVIDENCE}") from None
    statement = _verified(envelope, trust, "evidence", now)
    if content != statement["body"]["files"] or digest_of(content) != statement["subject_digest"]:
        raise Refused("evidence", "the model's files are not those of its evidence")
    _check_hint(envelope, hint)
    return statement


def _verified(envelope: Envelope, trust: Trust, type_: str, now: datetime) -> Statement:
    """A statement of whoever is pinned, for whatever workflow and domain: its receiver's gate looks at those."""
    said = read(envelope)
    return verify(
        envelope,
        trust,
        type_=type_,
        issuer=None,
        workflow_id=said["workflow_id"],
        audience=said["audience"],
        contract_digest=None,
        now=now,
    )


def _check_hint(envelope: Envelope, hint: Any) -> None:
    if hint is not None and statement_digest(hint) != statement_digest(envelope):
        raise Refused("evidence", "the statement in the metadata is not the one that came with the bytes")


def _summary(statement: Statement) -> dict[str, Any]:
    body = statement["body"]
    summary = {
        name: statement[name]
        for name in ("type", "workflow_id", "run_id", "audience", "sequence", "issued_at", "expires_at")
    }
    stages: dict[str, dict[str, float]] = {}
    for record in body["stages"]:
        stage = stages.setdefault(
            record["stage"], {"attempts": 0, "energy_j": 0.0, "energy_j_lower": 0.0, "energy_j_upper": 0.0}
        )
        stage["attempts"] += 1
        for name in ("energy_j", "energy_j_lower", "energy_j_upper"):
            stage[name] += record[name]
    inputs = dict(statement["inputs"])
    if "dataset" in body:
        inputs |= {f"dataset.{what}": digest for what, digest in body["dataset"].items()}
    return summary | {
        "name": body["name"],
        "version": body["version"],
        "metrics": dict(list(body.get("metrics", {}).items())[:_MOST]),
        "energy": dict(list(stages.items())[:_MOST]),
        "inputs": dict(list(inputs.items())[:_MOST]),
    }


def _bom_summary(document: Any) -> dict[str, Any]:
    """Components by number, and the licences that they name."""
    components = document.get("components", [])
    licences = set()
    for component in (document["metadata"]["component"], *components):
        for choice in component.get("licenses", []):
            licence = choice.get("license", {})
            name = choice.get("expression") or licence.get("id") or licence.get("name")
            if name:
                licences.add(str(name)[:_LONGEST])
    return {
        "components": len(components),
        "libraries": {
            str(each["name"])[:_LONGEST]: str(each.get("version", ""))[:_LONGEST] for each in components[:_MOST]
        },
        "licences": sorted(licences)[:_MOST],
    }


if __name__ == "__main__":
    sys.exit(main())
