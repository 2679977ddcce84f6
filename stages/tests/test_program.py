"""How any stage runs: what it is given, what it leaves behind, and how it ends."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hxmlops_evidence.digests import sha256_bytes
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_stages.processes import start_time
from hxmlops_stages.program import STAGES, Context, Failed, Outcome, main

Run = Callable[[Context], Outcome]
Result = dict[str, Any]
Stage = Callable[[Run], tuple[int, Result]]

SPEC = {
    "stage": "report",
    "domain": "mno-production",
    "party": "operator",
    "workflow": {"id": "churn", "version": "1.0"},
    "contract": {"schema": {}},
    "contract_digest": sha256_bytes(b"contract"),
    "parameters": {},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stage's folder as the executor makes it."""
    folder = tmp_path / "stages" / "report-0123456789ab"
    (folder / "input").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(SPEC))
    (tmp_path / "domain").mkdir()
    return folder


def arguments(folder: Path, location: str = "FI") -> list[str]:
    options: dict[str, Path | str] = {
        "spec": folder / "spec.json",
        "input": folder / "input",
        "output": folder / "output",
    }
    options |= {"domain": folder.parent.parent / "domain", "run-id": "run-1", "location": location}
    return ["report", *(f"--{name}={value}" for name, value in options.items())]


@pytest.fixture
def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Run a function as the stage `report`; answers the exit code and result.json."""
    umask = os.umask(0o022)

    def run_as_stage(run: Run) -> tuple[int, Result]:
        module = ModuleType("hxmlops_stages.report")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        code = main(arguments(folder))
        return code, json.loads((folder / "result.json").read_text())

    yield run_as_stage
    os.umask(umask)


def test_a_stage_reads_its_input_fills_its_output_and_leaves_one_result(stage: Stage, folder: Path) -> None:
    original = folder.parent / "rows.csv"
    original.write_bytes(b"a,b\n")
    (folder / "input" / "rows.csv").symlink_to(original)

    def run(context: Context) -> Outcome:
        assert (context.domain_name, context.party, context.workflow["id"]) == (
            "mno-production",
            "operator",
            "churn",
        )
        rows = (context.input / "rows.csv").read_bytes()
        (context.output / "private").mkdir()
        (context.output / "private" / "rows").write_bytes(rows)
        return Outcome("1 row", metrics={"rows": 1}, facts={"hxmlops_dataset": "sha256:1"})

    code, result = stage(run)

    assert code == 0
    assert {key: result[key] for key in ("status", "summary", "reason", "criterion", "changed", "run_id")} == {
        "status": "done",
        "summary": "1 row",
        "reason": None,
        "criterion": None,
        "changed": True,
        "run_id": "run-1",
    }
    assert result["metrics"] == {"rows": 1}
    assert result["facts"] == {"hxmlops_dataset": "sha256:1"}
    assert result["inputs"] == {"rows.csv": sha256_bytes(b"a,b\n")}
    assert result["outputs"] == {"private/rows": sha256_bytes(b"a,b\n")}
    assert stat.S_IMODE((folder / "result.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "output" / "private").stat().st_mode) == 0o700


def test_the_result_carries_the_energy_of_the_stage_and_its_children(stage: Stage) -> None:
    def run(_: Context) -> Outcome:
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
        return Outcome("burnt")

    _, result = stage(run)

    energy = result["energy"]
    assert (energy["stage"], energy["status"], energy["location"]) == ("report", "done", "FI")
    assert energy["cpu_s"] > 0.03
    assert 0 < energy["energy_j_lower"] <= energy["energy_j"] <= energy["energy_j_upper"]
    assert 0 < energy["co2e_g_lower"] <= energy["co2e_g"] <= energy["co2e_g_upper"]


def test_the_energy_of_a_failed_attempt_is_on_record(stage: Stage) -> None:
    def run(_: Context) -> Outcome:
        raise Failed("train.py exited with 1")

    _, result = stage(run)

    assert result["energy"]["status"] == "failed"
    assert result["energy"]["energy_j"] > 0


def test_an_unknown_location_is_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, location="Atlantis")) == 3
    assert "Atlantis" in capsys.readouterr().err
    assert not any((folder / "output").iterdir())


def test_records_of_earlier_stages_have_the_form_that_statements_hold(stage: Stage, folder: Path) -> None:
    _, first = stage(lambda _: Outcome("first"))
    record = first["energy"] | {"run_id": "run-0"}
    (folder / "spec.json").write_text(json.dumps(SPEC | {"parameters": {"records": [record]}}))

    def run(context: Context) -> Outcome:
        assert context.stages_so_far == [first["energy"]]
        return Outcome("second")

    assert stage(run)[0] == 0


def raises(problem: Exception) -> Run:
    def run(context: Context) -> Outcome:
        (context.output / "half-done.parquet").write_bytes(b"half")
        (context.output / "report.json").write_bytes(b"{}")
        raise problem

    return run


@pytest.mark.parametrize(
    ("problem", "code", "status", "criterion", "reason"),
    [
        (
            Refused("signature", "not signed\nby a pinned key"),
            2,
            "refused",
            "signature",
            "not signed by a pinned key",
        ),
        (BadInput("data.csv: empty"), 3, "bad_input", None, "data.csv: empty"),
        (Failed("no answer from the peer"), 1, "failed", None, "no answer from the peer"),
        (MemoryError(), 4, "out_of_resources", None, "out of memory: give the stage more, or less data"),
        (
            RuntimeError("IO: No space left on device"),
            4,
            "out_of_resources",
            None,
            "disk full: no space left",
        ),
    ],
)
def test_how_a_stage_ends(
    stage: Stage,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    problem: Exception,
    code: int,
    status: str,
    criterion: str | None,
    reason: str,
) -> None:
    exit_code, result = stage(raises(problem))

    assert (exit_code, result["status"], result["criterion"]) == (code, status, criterion)
    assert result["reason"].startswith(reason)
    assert capsys.readouterr().err == f"report: {result['reason']}\n"
    assert list(result["outputs"]) == ["report.json"]  # says why; products are gone
    assert not (folder / "output" / "half-done.parquet").exists()


def test_a_full_disk(stage: Stage) -> None:
    def run(_: Context) -> Outcome:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")
        return Outcome("never")

    code, result = stage(run)

    assert (code, result["reason"]) == (4, "disk full: no space left for the stage's files")


def test_an_unforeseen_error_tells_where_its_traceback_is_and_no_value(
    stage: Stage, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = stage(raises(ValueError("subscriber 4711")))

    file = folder / "traceback.txt"
    assert code == 1
    assert result["reason"] == f"unexpected error (ValueError): see {file}"
    assert "4711" not in capsys.readouterr().err
    assert "subscriber 4711" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    stage(lambda _: Outcome("well now"))
    assert not file.exists()


def test_a_metric_that_is_not_a_number_is_an_error(stage: Stage) -> None:
    code, result = stage(lambda _: Outcome("nan", metrics={"roc_auc": float("nan")}))

    assert code == 1
    assert result["metrics"] == {}


def test_output_of_an_earlier_run_is_gone_before_the_stage_runs(stage: Stage, folder: Path) -> None:
    stale = folder / "output" / "model" / "stale"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    (folder / "result.json").write_text("old")

    def run(context: Context) -> Outcome:
        assert not any(context.output.iterdir())
        assert not (folder / "result.json").exists()
        return Outcome("clean")

    assert stage(run)[0] == 0


def test_a_folder_that_holds_something_given_is_never_emptied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [o if not o.startswith("--output") else f"--output={folder}" for o in arguments(folder)]

    assert main(options) == 3
    assert "give a folder of its own" in capsys.readouterr().err
    assert (folder / "spec.json").exists()


def test_a_missing_input_file_is_named(stage: Stage, folder: Path) -> None:
    (folder / "input" / "data.csv").symlink_to(folder / "nowhere.csv")

    code, result = stage(lambda _: Outcome("never"))

    assert (code, result["reason"]) == (3, f"input {folder}/input/data.csv: No such file or directory")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{", "not a JSON file"),
        ("{}", "lacks stage"),
        (json.dumps({**SPEC, "stage": "gate"}), "is for stage gate"),
    ],
)
def test_a_wrong_spec(folder: Path, capsys: pytest.CaptureFixture[str], spec: str, says: str) -> None:
    (folder / "spec.json").write_text(spec)

    assert main(arguments(folder)) == 3
    assert says in capsys.readouterr().err


def test_an_unknown_stage_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="3"):
        main(["trainning"])
    said = capsys.readouterr().err
    assert all(name in said for name in STAGES)


# A stage in a process of its own: the lock, and signals.

PROGRAM = """
import hashlib, subprocess, sys, types
from hxmlops_stages.program import Outcome, main

def run(context):
    child = subprocess.Popen(["sleep", "60"])
    orphan = subprocess.run(["sh", "-c", "sleep 60 >&- & echo $!"], stdout=subprocess.PIPE, text=True).stdout
    context.say(f"{child.pid} {orphan.strip()}")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # one native call of minutes
    return Outcome("never")

sys.modules["hxmlops_stages.report"] = types.ModuleType("report")
sys.modules["hxmlops_stages.report"].run = run
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def working(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A stage that works for minutes, with a child and a grandchild that its parent has left behind."""
    program = [sys.executable, "-c", PROGRAM, *arguments(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield process
        process.kill()


def test_a_second_process_in_the_same_folder_stops_and_says_so(
    working: subprocess.Popen[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert working.stdout
    assert working.stdout.readline().startswith("report: ")

    assert main(arguments(folder)) == 5
    assert capsys.readouterr().err == f"report: already running by pid {working.pid}\n"
    assert (folder / "lock").read_text() == f"{working.pid} {start_time(working.pid)}\n"


def test_sigterm_ends_all_that_the_stage_started_and_leaves_no_result(
    working: subprocess.Popen[str], folder: Path
) -> None:
    assert working.stdout
    children = [int(pid) for pid in working.stdout.readline().split()[1:]]

    before = time.monotonic()
    working.send_signal(signal.SIGTERM)

    assert working.wait(10) == 143
    assert time.monotonic() - before < 2
    assert not any(alive(pid) for pid in children)
    assert len(children) == 2
    assert not (folder / "result.json").exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_lock_goes_with_its_process(working: subprocess.Popen[str], stage: Stage) -> None:
    assert working.stdout
    children = [int(pid) for pid in working.stdout.readline().split()[1:]]
    working.kill()
    working.wait()
    for pid in children:
        os.kill(pid, signal.SIGKILL)

    assert stage(lambda _: Outcome("taken over"))[0] == 0
