"""Joules of a process tree: measured by RAPL where that is readable, else estimated from CPU time."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypedDict

from hxmlops_stages import carbon
from hxmlops_stages.process_tree import ProcessTree, watch


class Joules(NamedTuple):
    """Energy in J with the bounds between which the true figure is expected."""

    value: float
    lower: float
    upper: float


DEFAULT: Mapping[str, float] = MappingProxyType(
    {
        "active_w_per_vcpu": 2.76,
        "idle_w_per_vcpu": 0.74,
        "memory_w_per_gb": 0.392,
        "bounds_factor": 2.0,
    }
)
"""Cloud Carbon Footprint's averages (Apache-2.0): a vCPU draws 0.74 W idle and 3.5 W at full load, so CPU
time adds the increment of 2.76 W over idle; memory 0.392 W/GB. Watts from such tables are good to a factor of
two."""

SAMPLED: Mapping[str, float] = MappingProxyType({**DEFAULT, "bounds_factor": 3.0})
"""The same for CPU time that was sampled, not counted: a short-lived process may be missing."""

RAPL_ERROR, RAPL_ERROR_SAMPLED = 0.3, 0.5
"""RAPL, shared out by CPU time, is good to 20-30 %; less so where the tree's CPU time was sampled."""


def estimate(
    cpu_s: float,
    wall_s: float,
    vcpu: float,
    memory_gb: float,
    coefficients: Mapping[str, float] = DEFAULT,
) -> Joules:
    """E = cpu_s x W_active + wall_s x vcpu x W_idle + memory_gb x wall_s x W_memory, in J.

    A receiver recomputes a peer's figure from its raw counters with coefficients of its own. ValueError for a
    counter that is negative or not finite.
    """
    for name, value in {"cpu_s": cpu_s, "wall_s": wall_s, "vcpu": vcpu, "memory_gb": memory_gb}.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number that is not negative")
    value = (
        cpu_s * coefficients["active_w_per_vcpu"]
        + wall_s * vcpu * coefficients["idle_w_per_vcpu"]
        + wall_s * memory_gb * coefficients["memory_w_per_gb"]
    )
    factor = coefficients["bounds_factor"]
    return Joules(value, value / factor, value * factor)


class Measurement(TypedDict):
    """The energy record of a piece of work; the runner adds `stage`, `status` and `attempt_id`."""

    started_at: str
    method: str
    source: str
    cpu_s: float
    wall_s: float
    vcpu: int
    memory_gb: float
    energy_j: float
    energy_j_lower: float
    energy_j_upper: float
    co2e_g: float
    co2e_g_lower: float
    co2e_g_upper: float
    location: str
    intensity_g_per_kwh: float
    intensity_source: str


class Meter:
    """Meters this process and all that it starts, between `start` and `stop` or as a context manager.

        with Meter("NO", whole_process=True) as meter:
            work()
        meter.record["energy_j"]

    `location` is the place whose electricity is used, an ISO 3166-1 alpha-2 code; BadInput when it is
    unknown, before any work. `whole_process` counts the process from its own start, imports included: what a
    stage's runner wants. `cgroups=False` goes without a cgroup; `powercap` and `proc_stat` say where RAPL and
    the machine's CPU time are read. In the record, `vcpu` is the number of CPUs that the process may run on,
    since these stand by for it.

    Nothing here makes the work fail: what cannot be had makes the figure coarser, and `source` says so.
    """

    record: Measurement

    def __init__(
        self,
        location: str,
        *,
        whole_process: bool = False,
        cgroups: bool = True,
        powercap: Path = Path("/sys/class/powercap"),
        proc_stat: Path = Path("/proc/stat"),
    ) -> None:
        carbon.intensity(location)
        self._location = location
        self._whole_process = whole_process
        self._cgroups = cgroups
        self._rapl = Rapl(powercap, proc_stat)

    def __enter__(self) -> Meter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._age_s, self._cpu_before_s = _age_and_cpu_s() if self._whole_process else (0.0, 0.0)
        self._started_at = time.time() - self._age_s
        self._started = time.monotonic()
        self._rapl.start()
        self._tree: ProcessTree = watch(cgroups=self._cgroups)
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="energy meter", daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        """Look ever more rarely at a long stage, so that looking costs little whatever its length.

        In a cgroup only memory and RAPL's wrap-around need it: some 100 looks in an hour. Sampled CPU time
        needs more: at most one per cent of the time goes into it.
        """
        pause_s = 0.01
        while not self._ended.wait(pause_s):
            begun = time.thread_time()
            self._tree.sample()
            self._rapl.sample()
            cost_s = time.thread_time() - begun
            elapsed_s = time.monotonic() - self._started
            pause_s = max(0.05, min(0.1 * elapsed_s, 60.0)) if self._tree.exact else max(0.01, 100 * cost_s)

    def stop(self) -> Measurement:
        """End the metering; the record is returned and kept as `record`."""
        self._ended.set()
        self._sampler.join()
        cpu_s = self._tree.cpu_s()
        wall_s = time.monotonic() - self._started
        measured = self._rapl.stop(cpu_s, RAPL_ERROR if self._tree.exact else RAPL_ERROR_SAMPLED)
        memory_gb = self._tree.memory_gb()
        source = self._tree.source
        self._tree.close()
        coefficients = DEFAULT if self._tree.exact else SAMPLED
        cpu_s, wall_s = cpu_s + self._cpu_before_s, wall_s + self._age_s
        vcpu = usable_cpus()
        if measured is None:
            method, joules = "estimated", estimate(cpu_s, wall_s, vcpu, memory_gb, coefficients)
            source += ", Cloud Carbon Footprint coefficients"
        else:
            before = estimate(self._cpu_before_s, self._age_s, vcpu, memory_gb, coefficients)
            method, joules = "measured", Joules(*(a + b for a, b in zip(measured, before, strict=True)))
            source += ", RAPL package"
        footprint = carbon.grams(joules, self._location)
        self.record = {
            "started_at": _rfc3339(self._started_at),
            "method": method,
            "source": source,
            "cpu_s": round(cpu_s, 6),
            "wall_s": round(wall_s, 6),
            "vcpu": vcpu,
            "memory_gb": round(memory_gb, 6),
            "energy_j": round(joules.value, 6),
            "energy_j_lower": round(joules.lower, 6),
            "energy_j_upper": round(joules.upper, 6),
            "co2e_g": round(footprint.g, 9),
            "co2e_g_lower": round(footprint.lower, 9),
            "co2e_g_upper": round(footprint.upper, 9),
            "location": self._location,
            "intensity_g_per_kwh": footprint.intensity_g_per_kwh,
            "intensity_source": footprint.source,
        }
        return self.record


class Rapl:
    """The CPU packages' energy counters, and the share of it that a process tree caused.

    A package's energy between two readings is shared out by CPU time: the tree's over all that the machine's
    CPUs were busy, as Kepler and Scaphandre do. Counters start again at `max_energy_range_uj`.
    """

    def __init__(self, powercap: Path, proc_stat: Path) -> None:
        self._proc_stat = proc_stat
        self._ranges: dict[Path, int] = {}
        self._last: dict[Path, int] = {}
        self._used_uj = 0
        self._busy_s = 0.0
        with contextlib.suppress(OSError, ValueError):
            for zone in sorted(powercap.glob("intel-rapl:*")):
                if (zone / "name").read_text().startswith("package"):
                    self._ranges[zone / "energy_uj"] = int((zone / "max_energy_range_uj").read_text())

    def start(self) -> None:
        try:
            self._last = {counter: int(counter.read_text()) for counter in self._ranges}
            self._busy_s = self._machine_busy_s() if self._ranges else 0.0
        except (OSError, ValueError):
            self._ranges.clear()  # since 2020 only root may read them

    def sample(self) -> None:
        """Follow the counters; to be called at least once in each of their rounds (minutes at full load)."""
        with contextlib.suppress(OSError, ValueError):
            for counter, size in self._ranges.items():
                now = int(counter.read_text())
                since = now - self._last[counter]
                self._used_uj += since if since >= 0 else since + size
                self._last[counter] = now

    def stop(self, tree_cpu_s: float, error: float = RAPL_ERROR) -> Joules | None:
        """J of the tree, `error` a share of it either way, or None where RAPL cannot be read."""
        if not self._ranges:
            return None
        self.sample()
        try:
            busy_s = max(self._machine_busy_s() - self._busy_s, tree_cpu_s)
        except (OSError, ValueError):
            return None
        value = self._used_uj / 1e6 * (tree_cpu_s / busy_s if busy_s else 0.0)
        return Joules(value, value * (1 - error), value * (1 + error))

    def _machine_busy_s(self) -> float:
        """All CPUs together, by proc_stat(5): user, nice, system, irq, softirq. Guests are part of user."""
        ticks = [int(field) for field in self._proc_stat.read_text().split("\n", 1)[0].split()[1:8]]
        return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / os.sysconf("SC_CLK_TCK")


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _age_and_cpu_s() -> tuple[float, float]:
    """Seconds since this process started, and the CPU time that it has used, waited children included."""
    times = os.times()
    cpu_s = time.process_time() + times.children_user + times.children_system
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # macOS
        age_s = cpu_s
    return max(age_s, 0.0), cpu_s


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
