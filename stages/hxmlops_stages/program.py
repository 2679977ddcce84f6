"""Runs one stage: reads its input folder, lets it fill its output folder, and last writes one `result.json`.

A stage is a module of this package with `def run(context: Context) -> Outcome`. It says no with
`hxmlops_evidence.errors.Refused`, blames what it was given with `BadInput`, and gives up with `Failed`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.errors import BadInput, Refused, one_line
from hxmlops_stages.energy import Measurement, Meter
from hxmlops_stages.processes import AlreadyRunning, held, stoppable

STAGES = (
    "data_validation",
    "anonymization",
    "encryption",
    "publish",
    "fetch",
    "training",
    "testing",
    "evidence",
    "gate",
    "acceptance",
    "approval",
    "promotion",
    "report",
)
EXIT_CODES = {"done": 0, "failed": 1, "refused": 2, "bad_input": 3, "out_of_resources": 4}
ALREADY_RUNNING = 5
# A stage that did not finish leaves no products, only what tells a person why.
KEPT_WITHOUT_SUCCESS = ("report.json", "log.txt", "private")
_SPEC_KEYS = ("stage", "domain", "party", "workflow", "contract", "contract_digest", "parameters")


class Failed(Exception):
    """The stage cannot go on, and nobody refused anything: a peer is down, a program crashed. One line."""


@dataclass(frozen=True)
class Context:
    """What a stage is given. `spec` is the executor's spec.json; the folders exist, `output` is empty."""

    spec: dict[str, Any]
    input: Path
    output: Path
    domain: Path
    run_id: str
    location: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.spec["parameters"])

    @property
    def contract(self) -> dict[str, Any]:
        return dict(self.spec["contract"])

    @property
    def contract_digest(self) -> str:
        return str(self.spec["contract_digest"])

    @property
    def workflow(self) -> dict[str, Any]:
        """`id`, `version`, and the domains that are its `owner`, `vendor`, `acceptor` and `server`."""
        return dict(self.spec["workflow"])

    @property
    def domain_name(self) -> str:
        return str(self.spec["domain"])

    @property
    def party(self) -> str:
        return str(self.spec["party"])

    @property
    def stages_so_far(self) -> list[dict[str, Any]]:
        """Energy of this domain's earlier stages, failed attempts included, in the form that statements hold."""
        fields = ("stage", "status", "attempt_id", *Measurement.__annotations__)
        return [{name: record[name] for name in fields} for record in self.spec["parameters"].get("records", [])]

    @property
    def releases(self) -> Path:
        """Folder of who was released in which class, a file a release: the next one is judged together with them."""
        return self.domain / "releases" / str(self.workflow["id"])

    def say(self, text: str) -> None:
        """Print one line of progress, at once."""
        print(f"{self.spec['stage']}: {text}", flush=True)


@dataclass
class Outcome:
    """What a finished stage says of itself. `facts` are references that the next step takes up."""

    summary: str
    metrics: dict[str, Any] = field(default_factory=dict)
    changed: bool = True
    valid_until: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Run the stage that the command line names and return its exit code."""
    options = _parse(arguments)
    os.umask(0o077)
    try:
        with held(options.output.parent / "lock"), stoppable():
            return _run(options)
    except AlreadyRunning as problem:
        return _complain(options.stage, str(problem), ALREADY_RUNNING)
    except BadInput as problem:
        return _complain(options.stage, str(problem), EXIT_CODES["bad_input"])
    except OSError as problem:
        status, reason = _explain_os_error(problem)
        return _complain(options.stage, reason, EXIT_CODES[status])


def _run(options: argparse.Namespace) -> int:
    """Run the stage under the lock. OSError only when the stage's own folder cannot be written."""
    stage, output = options.stage, options.output
    result_file, traceback_file = output.parent / "result.json", output.parent / "traceback.txt"
    _refuse_dangerous_output(options)
    result_file.unlink(missing_ok=True)
    traceback_file.unlink(missing_ok=True)
    _empty(output)
    result: dict[str, Any] = {
        "status": "failed",
        "stage": stage,
        "reason": None,
        "criterion": None,
        "summary": "",
        "metrics": {},
        "facts": {},
        "changed": False,
        "valid_until": None,
        "inputs": {},
        "outputs": {},
        "energy": None,
        "work_s": None,
        "run_id": options.run_id,
    }
    try:
        context = _context(options)
        result["inputs"] = _input_digests(options.input)
        with _metered(context, result):
            began = time.monotonic()
            outcome = importlib.import_module(f"hxmlops_stages.{stage}").run(context)
            result["work_s"] = round(time.monotonic() - began, 3)  # the stage's own share, its imports included
        said = {
            "summary": outcome.summary,
            "metrics": outcome.metrics,
            "facts": outcome.facts,
            "changed": outcome.changed,
            "valid_until": outcome.valid_until,
        }
        json.dumps(said, allow_nan=False)  # what is not JSON is the stage's error
        result |= {**said, "outputs": digests(output), "status": "done"}
    except Exception as problem:
        status, reason, criterion = _explain(problem)
        if not reason:
            traceback_file.write_text(traceback.format_exc())
            reason = f"unexpected error ({type(problem).__name__}): see {traceback_file}"
        _empty(output, keep=KEPT_WITHOUT_SUCCESS)
        result |= {"status": status, "reason": reason, "criterion": criterion, "outputs": digests(output)}
        _complain(stage, reason, EXIT_CODES[status])
    if result["energy"]:
        result["energy"]["status"] = result["status"]
    result["finished_at"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    _write_result(result_file, result)
    return EXIT_CODES[result["status"]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_CODES["bad_input"], f"hxmlops_stages: {message}\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m hxmlops_stages", description="Run one stage of a workflow.")
    parser.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--spec", type=Path, required=True, help="what to do: JSON, without secrets")
    parser.add_argument("--input", type=Path, required=True, help="folder of files that the stage reads")
    parser.add_argument("--output", type=Path, required=True, help="folder that is emptied and then filled")
    parser.add_argument("--domain", type=Path, required=True, help="the domain's folder: keys, trust, tokens")
    parser.add_argument("--run-id", required=True, help="names this run in statements and records")
    parser.add_argument("--location", required=True, help="ISO country code, for grams of CO2e")
    options = parser.parse_args(arguments)
    for name in ("spec", "input", "output", "domain"):
        setattr(options, name, getattr(options, name).absolute())
    return options


def _context(options: argparse.Namespace) -> Context:
    try:
        spec = json.loads(options.spec.read_bytes())
    except (FileNotFoundError, ValueError) as problem:
        raise BadInput(f"spec {options.spec}: not a JSON file ({type(problem).__name__})") from None
    missing = [key for key in _SPEC_KEYS if not isinstance(spec, dict) or key not in spec]
    if missing:
        raise BadInput(f"spec {options.spec}: lacks {', '.join(missing)}")
    if spec["stage"] != options.stage:
        raise BadInput(f"spec {options.spec}: is for stage {spec['stage']}, not {options.stage}")
    for name in ("input", "domain"):
        if not getattr(options, name).is_dir():
            raise BadInput(f"--{name} {getattr(options, name)}: no such folder")
    return Context(spec, options.input, options.output, options.domain, options.run_id, options.location)


def _refuse_dangerous_output(options: argparse.Namespace) -> None:
    """The output folder will be emptied, so it may hold nothing that is given, and lead nowhere else."""
    output = options.output
    if output.is_symlink():
        raise BadInput(f"--output {output}: is a link, give a folder")
    for given in (options.spec, options.input, options.domain, Path.cwd(), Path.home()):
        if given.resolve().is_relative_to(output.resolve()):
            raise BadInput(f"--output {output}: would be emptied but holds {given}; give a folder of its own")


def _empty(folder: Path, keep: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below `folder`, by relative path; links are followed, for inputs are linked in."""
    files = (Path(top) / name for top, _, names in os.walk(folder, followlinks=True) for name in names)
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(files)}


def _input_digests(folder: Path) -> dict[str, str]:
    try:
        return digests(folder)
    except (FileNotFoundError, PermissionError) as problem:
        raise BadInput(f"input {problem.filename}: {problem.strerror}") from None


def _explain(problem: Exception) -> tuple[str, str, str | None]:
    """(status, reason in one line or "" when the problem was not foreseen, criterion)."""
    if isinstance(problem, Refused):
        return "refused", problem.reason, problem.criterion
    if isinstance(problem, BadInput):
        return "bad_input", str(problem), None
    if isinstance(problem, Failed):
        return "failed", one_line(str(problem)), None
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryException":  # the latter: DuckDB's
        return "out_of_resources", _EXHAUSTED[errno.ENOMEM], None
    if isinstance(problem, OSError) and problem.errno in _EXHAUSTED:
        return *_explain_os_error(problem), None
    for (
        number,
        reason,
    ) in _EXHAUSTED.items():  # native libraries raise types of their own, with the system's words
        if os.strerror(number) in str(problem):
            return "out_of_resources", reason, None
    return "failed", "", None


_EXHAUSTED = {
    errno.ENOSPC: "disk full: no space left for the stage's files",
    errno.EDQUOT: "disk quota exceeded by the stage's files",
    errno.EFBIG: "a file is larger than the limit on file sizes (ulimit -f)",
    errno.ENOMEM: "out of memory: give the stage more, or less data",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}


def _explain_os_error(problem: OSError) -> tuple[str, str]:
    if problem.errno in _EXHAUSTED:
        where = f" ({problem.filename})" if problem.filename else ""
        return "out_of_resources", _EXHAUSTED[problem.errno] + where
    return "failed", one_line(str(problem))


def _complain(stage: str, reason: str, code: int) -> int:
    print(f"{stage}: {reason}", file=sys.stderr, flush=True)
    return code


def _write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write the result whole or not at all: its presence says that the stage has ended."""
    temporary = file.with_name(file.name + ".new")
    with temporary.open("w") as stream:
        json.dump(result, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


@contextmanager
def _metered(context: Context, result: dict[str, Any]) -> Iterator[None]:
    """Put the energy of this process and of all that it starts into the result, however the stage ends."""
    meter = Meter(context.location, whole_process=True)
    try:
        with meter:
            yield
    finally:
        attempt = {"stage": result["stage"], "status": "failed", "attempt_id": os.urandom(8).hex()}
        result["energy"] = attempt | dict(meter.record)
