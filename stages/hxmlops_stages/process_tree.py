"""CPU time and memory of this process and of all that it starts, by whoever was or was not waited for.

`RUSAGE_CHILDREN` alone misses children that nobody waited for: those of a parent that ignores SIGCHLD, and
daemons that fork twice. A cgroup misses none. Where no cgroup can be made, `SampledTree` adopts orphans and
watches /proc, which can miss what lived shorter than the time between two looks.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

_PREFIX = "hxmlops-meter-"
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class ProcessTree(Protocol):
    """Counts from when it is made until `close`. `sample` is to be called now and then, from a thread."""

    source: str
    exact: bool

    def sample(self) -> None: ...
    def cpu_s(self) -> float: ...
    def memory_gb(self) -> float: ...
    def close(self) -> None: ...


def watch(*, cgroups: bool = True) -> ProcessTree:
    """Start counting: in a cgroup of our own where one can be made, else by sampling."""
    if cgroups:
        CgroupTree.wait_for_close()
        for kind, parent in own_cgroups():
            with contextlib.suppress(OSError, ValueError):
                return CgroupTree(kind, parent)
    return SampledTree()


def own_cgroups(proc: Path = Path("/proc/self")) -> Iterator[tuple[str, Path]]:
    """(kind, folder) of the cgroups that this process is in and that count CPU time: "v2", then "v1"."""
    try:
        memberships = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    except OSError:
        return
    for kind, filesystem in (("v2", "cgroup2"), ("v1", "cgroup")):
        for mount in mounts:
            after = mount.index("-")
            controllers = mount[after + 3].split(",")
            if mount[after + 1] != filesystem or (kind == "v1" and "cpuacct" not in controllers):
                continue
            for number, names, path in memberships:
                if (kind == "v2" and number == "0") or (kind == "v1" and "cpuacct" in names.split(",")):
                    inside = os.path.relpath(path, mount[3])
                    yield kind, Path(mount[4]) / ("" if inside.startswith("..") else inside)


class CgroupTree:
    """A new cgroup below our own, with this process in it; what it starts follows. OSError where forbidden."""

    exact = True
    _leaving: threading.Thread | None = None

    def __init__(self, kind: str, parent: Path) -> None:
        self.source = f"cgroup {kind}"
        self._kind = kind
        self._parent = parent
        self._peak_bytes = 0
        _remove_leftovers(parent)
        self._folder = parent / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        self._folder.mkdir()
        try:
            (self._folder / "cgroup.procs").write_text(str(os.getpid()))  # the kernel lets this wait some 10 ms
            self._start_s = self._usage_s()
        except BaseException:
            self._leave()
            raise

    def _usage_s(self) -> float:
        if self._kind == "v1":
            return int((self._folder / "cpuacct.usage").read_text()) / 1e9
        fields = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6

    def sample(self) -> None:
        with contextlib.suppress(OSError):
            pids = (self._folder / "cgroup.procs").read_text().split()
            self._peak_bytes = max(self._peak_bytes, sum(_peak_bytes(int(pid)) for pid in pids))

    def cpu_s(self) -> float:
        return self._usage_s() - self._start_s

    def memory_gb(self) -> float:
        """The kernel's mark where the memory controller is on, else the largest sum of peaks seen."""
        self.sample()
        with contextlib.suppress(OSError, ValueError):
            self._peak_bytes = int((self._folder / "memory.peak").read_text())
        return self._peak_bytes / 1e9

    def close(self) -> None:
        """Move this process, and any that outlives the stage, back to where we came from.

        In a thread that the process waits for at its end, since the kernel lets this wait some 10 ms too.
        """
        CgroupTree._leaving = threading.Thread(target=self._leave, args=(CgroupTree._leaving,))
        CgroupTree._leaving.start()

    @staticmethod
    def wait_for_close() -> None:
        """Wait until this process is back where it came from."""
        if CgroupTree._leaving:
            CgroupTree._leaving.join()

    def _leave(self, after: threading.Thread | None = None) -> None:
        if after:
            after.join()
        for _ in range(50):  # a process may fork between the list and the move, or be about to end
            with contextlib.suppress(OSError):
                for pid in (self._folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):
                        (self._parent / "cgroup.procs").write_text(pid)
                self._folder.rmdir()
                return
            time.sleep(0.002)


def _remove_leftovers(parent: Path) -> None:
    """Remove empty cgroups of stages that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


class _Seen(NamedTuple):
    """One look at a process. CPU seconds: its own, and those of children it has waited for."""

    parent: int
    zombie: bool
    own_s: float
    waited_s: float
    resident_bytes: int

    @property
    def total_s(self) -> float:
        return self.own_s + self.waited_s


_Name = tuple[int, int]  # process id and its start time: an id alone is used again


class SampledTree:
    """This process's rusage, what /proc says of its living descendants, and orphans, which come to us.

    When a process is waited for, its time moves to the process that waited. So when one has vanished between
    two looks, what its nearest living ancestor does not gain by waiting is lost, and is counted as last seen.
    """

    exact = False

    def __init__(self) -> None:
        self._me = os.getpid()
        self.source = "rusage and /proc sampling" if _stat(self._me) else "rusage"
        self._was_subreaper = _adopt_orphans(True)
        self._peak_bytes = 0
        self._lost_s = 0.0
        self._missing_s: dict[int, float] = {}
        self._waited_s, self._seen = self._look()
        self._start_s = self._counted_s()

    def _counted_s(self) -> float:
        living_s = sum(seen.total_s for seen in self._seen.values())
        return _own_s() + self._waited_s + living_s + self._lost_s + sum(self._missing_s.values())

    def _look(self) -> tuple[float, dict[_Name, _Seen]]:
        """Waiting time of this process, and its descendants.

        A parent is read before its children: one that is waited for meanwhile is missing now and its time is
        gained at the next look, never the other way round.
        """
        waited_s = _waited_s()
        now: dict[_Name, _Seen] = {}
        todo = [self._me]
        while todo:
            for pid in _children(todo.pop()):
                look = _stat(pid)
                if look and look[0] not in now:
                    now[look[0]] = look[1]
                    todo.append(pid)
        return waited_s, now

    def sample(self) -> None:
        waited_s, now = self._look()
        gained_s = {self._me: waited_s - self._waited_s}
        for name, seen in now.items():
            before = self._seen.get(name)
            gained_s[name[0]] = seen.waited_s - (before.waited_s if before else 0.0)
        vanished_s: dict[int, float] = defaultdict(float)
        for name, seen in self._seen.items():
            if name not in now:
                vanished_s[self._living_ancestor(seen.parent, gained_s)] += seen.total_s
        for ancestor, missing_s in self._missing_s.items():
            late_s = max(0.0, gained_s.get(ancestor, 0.0) - vanished_s.get(ancestor, 0.0))
            self._lost_s += max(0.0, missing_s - late_s)
        self._missing_s = {
            ancestor: gone_s - gained_s[ancestor]
            for ancestor, gone_s in vanished_s.items()
            if gone_s > gained_s[ancestor]
        }
        self._reap_adopted(now)
        self._waited_s, self._seen = waited_s, now
        me = _stat(self._me)
        resident = sum(seen.resident_bytes for seen in now.values()) + (me[1].resident_bytes if me else 0)
        self._peak_bytes = max(self._peak_bytes, resident)

    def _living_ancestor(self, pid: int, living: Container[int]) -> int:
        parents = {name[0]: seen.parent for name, seen in self._seen.items()}
        for _ in self._seen:
            if pid in living:
                return pid
            pid = parents.get(pid, self._me)
        return self._me

    def _reap_adopted(self, now: dict[_Name, _Seen]) -> None:
        """Only orphans are reaped here: the exit status of a child of our own belongs to who started it."""
        for name, seen in now.items():
            before = self._seen.get(name)
            if seen.zombie and seen.parent == self._me and before and before.parent != self._me:
                with contextlib.suppress(ChildProcessError):
                    os.wait4(name[0], os.WNOHANG)

    def cpu_s(self) -> float:
        self.sample()
        return max(0.0, self._counted_s() - self._start_s)

    def memory_gb(self) -> float:
        """Largest sum seen of what the processes had resident; without /proc (macOS) the peak of this one."""
        self.sample()
        return (self._peak_bytes or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e9

    def close(self) -> None:
        if not self._was_subreaper:
            _adopt_orphans(False)


def _own_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _waited_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _stat(pid: int) -> tuple[_Name, _Seen] | None:
    """/proc/PID/stat; its fields by proc(5): 3 state, 4 ppid, 14-15 own, 16-17 waited, 22 start, 24 rss."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    own, waited, start, pages = (
        int(fields[11]) + int(fields[12]),
        int(fields[13]) + int(fields[14]),
        int(fields[19]),
        int(fields[21]),
    )
    seen = _Seen(int(fields[1]), fields[0] == "Z", own / _TICKS, waited / _TICKS, pages * _PAGE)
    return (pid, start), seen


def _peak_bytes(pid: int) -> int:
    """Most memory that the process ever had resident; 0 when it is gone. Shared pages count for each."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _adopt_orphans(adopt: bool) -> bool:
    """Make this process the parent of descendants whose own parent ends, or not; was it already?"""
    import ctypes

    set_subreaper, get_subreaper = 36, 37  # prctl(2)
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return False
    before = ctypes.c_int(0)
    prctl(get_subreaper, ctypes.byref(before))
    prctl(set_subreaper, ctypes.c_ulong(adopt))
    return bool(before.value)
