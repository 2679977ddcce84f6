"""Joules: what is counted, how it becomes energy, and how sure the figure is."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hxmlops_evidence.errors import BadInput
from hxmlops_stages import energy, process_tree
from hxmlops_stages.energy import Meter, Rapl, estimate

PYTHON = [sys.executable, "-S", "-E", "-c"]
BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]): pass
print(time.process_time(), flush=True)
time.sleep(float(sys.argv[2]))
"""


def burn(cpu_s: float, lingers_s: float = 0.0) -> list[str]:
    """A program that burns this much CPU time, says how much it was, and lingers before it ends.

    What nobody waits for is counted by looking at it: it lingers so that a busy machine looks in time.
    """
    return [*PYTHON, BURN, str(cpu_s), str(lingers_s)]


# The estimator


def test_energy_is_cpu_time_over_idle_plus_reserved_cpus_plus_memory() -> None:
    joules = estimate(cpu_s=10, wall_s=20, vcpu=2, memory_gb=4)
    assert joules.value == pytest.approx(10 * 2.76 + 20 * 2 * 0.74 + 20 * 4 * 0.392)
    assert joules.lower == pytest.approx(joules.value / 2)
    assert joules.upper == pytest.approx(joules.value * 2)


def test_a_cpu_at_full_load_is_counted_once() -> None:
    assert estimate(cpu_s=1, wall_s=1, vcpu=1, memory_gb=0).value == pytest.approx(3.5)


def test_a_receiver_recomputes_with_its_own_coefficients() -> None:
    own = {**energy.DEFAULT, "active_w_per_vcpu": 10.0, "bounds_factor": 4.0}
    assert estimate(1, 0, 1, 0, own) == (10.0, 2.5, 40.0)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_counters_that_cannot_be_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="wall_s must be a number that is not negative"):
        estimate(1, wrong, 1, 1)


# What a meter counts. Each returns the CPU time that was burnt, in seconds, as the programs said it.


def waited_children() -> float:
    children = [subprocess.Popen(burn(0.2), stdout=subprocess.PIPE) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return sum(map(float, said))


def children_of_a_parent_that_ignores_sigchld() -> float:
    ignoring = "import signal, subprocess, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    parent = [*PYTHON, ignoring + "subprocess.Popen(sys.argv[1:]).wait()", *burn(0.4, lingers_s=1)]
    return float(subprocess.run(parent, check=True, stdout=subprocess.PIPE).stdout)


def a_daemon_that_forks_twice() -> float:
    daemon = "import os, sys\nif not os.fork() and not os.fork():\n os.execv(sys.argv[1], sys.argv[1:])"
    parent = [*PYTHON, daemon, *burn(0.3, lingers_s=1)]
    return float(subprocess.run(parent, check=True, stdout=subprocess.PIPE).stdout)  # waits for the pipe's end


def short_lived_children() -> float:
    return sum(float(subprocess.run(burn(0.04), check=True, stdout=subprocess.PIPE).stdout) for _ in range(8))


def a_child_that_is_still_running() -> float:
    child = subprocess.Popen(burn(60))
    while process_cpu_s(child.pid) < 0.3:
        time.sleep(0.01)
    survivors.append(child)
    return 0.3


def threads_of_our_own() -> float:
    def work() -> None:
        while time.thread_time() < 0.15:
            pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0.3


survivors: list[subprocess.Popen[bytes]] = []


def process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroup", "sampled"])
@pytest.mark.parametrize(
    "work",
    [
        waited_children,
        children_of_a_parent_that_ignores_sigchld,
        a_daemon_that_forks_twice,
        short_lived_children,
        a_child_that_is_still_running,
        threads_of_our_own,
    ],
)
def test_the_whole_process_tree_is_counted(work: Callable[[], float], cgroups: bool) -> None:
    with Meter("NO", cgroups=cgroups) as meter:
        burnt_s = work()
    for child in survivors:
        child.kill()
        child.wait()
    survivors.clear()
    least = 0.98 if meter.record["source"].startswith("cgroup") else 0.9
    assert least * burnt_s <= meter.record["cpu_s"] <= burnt_s + 0.4


def test_exit_statuses_are_left_to_who_started_the_child() -> None:
    with Meter("NO", cgroups=False):
        child = subprocess.Popen([*PYTHON, "raise SystemExit(7)"])
        time.sleep(0.2)
        assert child.wait() == 7


def test_a_record_says_how_it_was_made() -> None:
    with Meter("NO", cgroups=False) as meter:
        time.sleep(0.05)
    record = meter.record
    assert record["method"] == "estimated"
    assert record["source"] == "rusage and /proc sampling, Cloud Carbon Footprint coefficients"
    assert record["location"] == "NO"
    assert record["vcpu"] == len(os.sched_getaffinity(0))
    assert 0.05 <= record["wall_s"] < 5
    assert 0.01 < record["memory_gb"] < 10
    assert record["started_at"].endswith("Z")
    counters = (record["cpu_s"], record["wall_s"], record["vcpu"], record["memory_gb"])
    joules = estimate(*counters, energy.SAMPLED)
    assert (record["energy_j"], record["energy_j_upper"]) == pytest.approx((joules.value, joules.value * 3), rel=1e-4)
    assert record["co2e_g_lower"] < record["co2e_g"] < record["co2e_g_upper"]
    json.dumps(record)


def test_a_stage_is_counted_from_the_start_of_its_process() -> None:
    program = (
        "import json, time\nwhile time.process_time() < 0.3: pass\n"
        "from hxmlops_stages.energy import Meter\n"
        "with Meter('NO', whole_process=True) as meter: pass\nprint(json.dumps(meter.record))"
    )
    record = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert record["cpu_s"] >= 0.3
    assert record["wall_s"] >= 0.25


def test_an_unknown_location_is_said_before_any_work() -> None:
    with pytest.raises(BadInput, match=r"location 'UK'.*did you mean GB"):
        Meter("UK")


def test_a_meter_leaves_everything_as_it_was() -> None:
    before = Path("/proc/self/cgroup").read_text()
    with Meter("NO"):
        child = subprocess.Popen(burn(60))
    process_tree.CgroupTree.wait_for_close()
    assert Path("/proc/self/cgroup").read_text() == before
    assert Path(f"/proc/{child.pid}/cgroup").read_text() == before
    for _, parent in process_tree.own_cgroups():
        assert not list(parent.glob(f"hxmlops-meter-{os.getpid()}-*"))
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_one_meter_follows_another() -> None:
    for _ in range(5):
        with Meter("NO") as meter:
            subprocess.run(burn(0.03), check=True)
        assert 0.03 <= meter.record["cpu_s"] < 0.3


def test_meters_nest() -> None:
    with Meter("NO") as outer:
        subprocess.run(burn(0.1), check=True)
        with Meter("NO") as inner:
            subprocess.run(burn(0.1), check=True)
    assert inner.record["cpu_s"] >= 0.09
    assert outer.record["cpu_s"] >= inner.record["cpu_s"] + 0.09


# Where cgroups are found


def test_cgroups_are_found_through_mounts_also_in_a_container(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("2:cpu,cpuacct:/docker/abc\n1:memory:/docker/abc\n0::/user.slice/a.scope\n")
    (tmp_path / "mountinfo").write_text(
        "30 1 0:1 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 1 0:2 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 1 0:3 / /sys/fs/cgroup/unified rw,relatime shared:1 - cgroup2 cgroup2 rw\n"
    )
    assert list(process_tree.own_cgroups(tmp_path)) == [
        ("v2", Path("/sys/fs/cgroup/unified/user.slice/a.scope")),
        ("v1", Path("/sys/fs/cgroup/cpu")),
    ]


def test_without_cgroups_the_tree_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(process_tree.own_cgroups(tmp_path)) == []
    monkeypatch.setattr(process_tree, "own_cgroups", lambda: iter([("v2", tmp_path / "read-only")]))
    tree = process_tree.watch()
    tree.close()
    assert not tree.exact


# RAPL, read from files that look like the kernel's


@pytest.fixture
def machine(tmp_path: Path) -> "Machine":
    return Machine(tmp_path)


class Machine:
    """A power capping tree with one package, a zone in it, and the platform's zone beside it."""

    def __init__(self, folder: Path) -> None:
        self.powercap, self.proc_stat = folder / "powercap", folder / "stat"
        for zone, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:1": "psys",
        }.items():
            (self.powercap / zone).mkdir(parents=True)
            (self.powercap / zone / "name").write_text(name + "\n")
            (self.powercap / zone / "max_energy_range_uj").write_text("262143328850\n")
            (self.powercap / zone / "energy_uj").write_text("999000000\n")
        self.package = self.powercap / "intel-rapl:0" / "energy_uj"
        self.package.write_text("1000000\n")
        self.busy(0)

    def busy(self, seconds: float) -> None:
        ticks = round(seconds * os.sysconf("SC_CLK_TCK"))
        self.proc_stat.write_text(f"cpu  {ticks} 0 0 123456 789 0 0 0 0 0\ncpu0 0 0 0 0\n")


def test_a_package_is_shared_out_by_cpu_time(machine: Machine) -> None:
    rapl = Rapl(machine.powercap, machine.proc_stat)
    rapl.start()
    machine.package.write_text("101000000\n")
    machine.busy(8)
    assert rapl.stop(tree_cpu_s=2.0) == pytest.approx((25.0, 17.5, 32.5))


def test_a_counter_that_started_again_is_followed(machine: Machine) -> None:
    machine.package.write_text("262143000000\n")
    rapl = Rapl(machine.powercap, machine.proc_stat)
    rapl.start()
    machine.package.write_text("671150\n")
    machine.busy(1)
    joules = rapl.stop(tree_cpu_s=1.0)
    assert joules is not None
    assert joules.value == pytest.approx(1.0)


def test_where_rapl_is_readable_the_meter_measures(machine: Machine) -> None:
    with Meter("NO", powercap=machine.powercap, proc_stat=machine.proc_stat) as meter:
        machine.package.write_text("11000000\n")
    assert meter.record["method"] == "measured"
    assert meter.record["source"].endswith("RAPL package")
    assert meter.record["energy_j"] == pytest.approx(10.0)  # nothing else was busy


def test_where_rapl_is_not_readable_the_meter_estimates(machine: Machine) -> None:
    machine.package.unlink()
    with Meter("NO", powercap=machine.powercap, proc_stat=machine.proc_stat) as meter:
        pass
    assert meter.record["method"] == "estimated"
