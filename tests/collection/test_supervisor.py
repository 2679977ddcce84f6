"""Long-lived programs under a real supervisord: started once, restarted when they crash, gone when told."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import started_at
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._supervisor import Supervisor

SLEEPER = [sys.executable, "-u", "-c", "import os,time; print(os.environ['WORD']); time.sleep(60)"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    daemon = Supervisor(tmp_path / "mno-production", sys.executable)
    yield daemon
    if daemon.running():
        daemon.shutdown()


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come true in 10 s"
        time.sleep(0.05)


def pid(daemon: Supervisor, name: str = "sleeper") -> int:
    program = daemon.program(name)
    return int(program["pid"]) if program and program["statename"] == "RUNNING" else 0


def test_a_program_runs_with_its_environment_and_logs_to_its_file(supervisor: Supervisor) -> None:
    supervisor.apply("sleeper", supervisor.text("sleeper", SLEEPER, {"WORD": "100% ready"}))
    eventually(lambda: "100% ready" in supervisor.last_line("sleeper"))
    assert (supervisor.folder / "sleeper.log").stat().st_mode & 0o077 == 0


def test_a_program_that_crashes_is_started_again(supervisor: Supervisor) -> None:
    supervisor.apply("sleeper", supervisor.text("sleeper", SLEEPER, {"WORD": "x"}))
    eventually(lambda: pid(supervisor) > 0)
    first = pid(supervisor)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pid(supervisor) not in (0, first))


def test_another_configuration_replaces_the_running_program(supervisor: Supervisor) -> None:
    for word in ("first", "second"):
        supervisor.apply("sleeper", supervisor.text("sleeper", SLEEPER, {"WORD": word}))
        eventually(lambda word=word: supervisor.last_line("sleeper") == word)  # type: ignore[misc]


def test_a_removed_program_is_stopped_and_forgotten(supervisor: Supervisor) -> None:
    supervisor.apply("sleeper", supervisor.text("sleeper", SLEEPER, {"WORD": "x"}))
    eventually(lambda: pid(supervisor) > 0)
    left = pid(supervisor)
    supervisor.remove("sleeper")
    assert supervisor.program("sleeper") is None
    assert started_at(left) is None


def test_shutdown_leaves_no_process(supervisor: Supervisor) -> None:
    supervisor.apply("sleeper", supervisor.text("sleeper", SLEEPER, {"WORD": "x"}))
    eventually(lambda: pid(supervisor) > 0)
    left = pid(supervisor)
    supervisor.shutdown()
    assert started_at(left) is None
    assert not supervisor.running()


def test_a_long_path_still_has_a_socket(tmp_path: Path) -> None:
    daemon = Supervisor(tmp_path / ("deep" * 30), sys.executable)
    daemon.apply("sleeper", daemon.text("sleeper", SLEEPER, {"WORD": "x"}))
    eventually(lambda: pid(daemon) > 0)
    daemon.shutdown()
