"""Fourteen modules in three domains, and in thirty: ours beside kubernetes.core.helm, on the same API servers.

    .venv/bin/python benchmarks/kubernetes.py [ROUNDS, at most 8]

Three control planes are started for it (those of HXMLOPS_CLUSTERS are used instead, if set): real API servers whose
etcd does not sync to disk and which have API priority and fairness off, with kwok in the place of kubelets, so that
pods are ready at once. That is the same for both, as are Helm 4.3.1, the charts, their values and Ansible's forks.

Ours is playbooks/deploy.yml. The peer is a playbook as its users write it: one task of kubernetes.core.helm that loops
over the releases in a working order, hosts side by side, without the helm-diff plugin (which costs two more processes
a release). It comes from the package `ansible` in a virtual environment of its own, `.venv-kubernetes-core`; it gets
pipelining, and the Secrets that the modules need are made for it before its time runs. Each side has namespaces of its
own. They take turns, and after each run it is checked that exactly what should changed did. Nothing fails on a time.

In all it takes ten to twenty minutes on 2 cores, most of it the peer's installs and the thirty domains' first one.
"""

from __future__ import annotations

import contextlib
import graphlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "collections")]

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _modules  # noqa: E402 - the project is no package
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import merged  # noqa: E402

from tests.cluster.clusters import DOMAINS, Cluster, environment, found, running, tools  # noqa: E402

PEER = PROJECT / ".venv-kubernetes-core" / "bin" / "ansible-playbook"
OURS = PROJECT / ".venv" / "bin" / "ansible-playbook"
MODULES = tuple(_modules.known())
METERS = [name for name in MODULES if _modules.module(name).data.get("privileged")]
CHANGED = "grafana"  # the module of which a value changes: it has one workload, whose pod is then made anew
ROUNDS, INSTALLS, MANY, DEFAULT_FORKS = 5, 3, 30, 5
MOST_ROUNDS = 8  # helm keeps ten revisions of a release, and they are counted
LIMIT_S, SAMPLE_S = 1200, 0.1

PEER_PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Install the releases
      kubernetes.core.helm:
        name: "{{ item.name }}"
        chart_ref: "{{ item.chart }}"
        release_namespace: "{{ item.namespace }}"
        values: "{{ item['values'] }}"
        kubeconfig: "{{ kubeconfig }}"
        context: "{{ context }}"
        wait: true
      loop: "{{ releases }}"
      loop_control:
        label: "{{ item.name }}"
"""
EMPTY_PLAY = """
- hosts: all
  gather_facts: false
  tasks: []
"""
WITHOUT_WAITING = """
- hosts: all
  gather_facts: false
  tasks:
    - hxmlops.mlops.modules:
        wait: false
"""
INSTANT_HELM = '#!/bin/sh\n[ "$1" != version ] || echo v4.3.1\n'


@dataclass
class Ran:
    """An ansible-playbook that succeeded: its seconds, hosts that changed, and memory if that was asked for."""

    seconds: float
    cpu_s: float  # of it and all that it started; not of the API servers
    changed: int
    memory: Peaks


class Side:
    """Domains in namespaces of their own, one for each host, brought to what is wanted by one program."""

    command: Sequence[str]

    def __init__(self, bench: Bench, clusters: Sequence[Cluster], space: str) -> None:
        self.bench = bench
        self.hosts = {
            (cluster.name if len(clusters) == len(DOMAINS) else f"domain-{number:02}"): cluster
            for number, cluster in enumerate(clusters)
        }
        self.spaces = {
            host: space if len(clusters) == len(DOMAINS) else f"{space}-{number:02}"
            for number, host in enumerate(self.hosts)
        }
        self.turn = 0
        bench.play(
            [OURS, "-i", self.inventory(self.ours()), PROJECT / "playbooks" / "prepare.yml"], hxmlops_meters=METERS
        )
        bench.spaces += [(self.hosts[host], name) for host, name in self.spaces.items()]

    def items(self) -> list[dict[str, Any]]:
        """The fourteen modules; one has a value that `turn` changes."""
        values = {"podAnnotations": {"turn": str(self.turn)}}
        return [{"module": name, **({"values": values} if name == CHANGED else {})} for name in MODULES]

    def ours(self) -> dict[str, dict[str, Any]]:
        """Variables of each host, as the collection's users write them."""
        return {
            host: {
                "hxmlops_runtime": "kubernetes",
                "hxmlops_kubeconfig": str(cluster.kubeconfig),
                "hxmlops_context": cluster.context,
                "hxmlops_namespace": self.spaces[host],
                "hxmlops_location": "ES",
                "hxmlops_modules": self.items(),
            }
            for host, cluster in self.hosts.items()
        }

    def releases(self, host: str) -> list[dict[str, Any]]:
        """The same fourteen as Helm releases with the same values, each after what it needs."""
        listed = _modules.releases(self.items(), _modules.Place(host, self.spaces[host], "ES"))
        by_name = {one["name"]: {**one, "values": merged(one["defaults"], one["values"])} for one in listed}
        ordered = graphlib.TopologicalSorter({one["name"]: one["needs"] for one in listed}).static_order()
        return [by_name[name] for name in ordered]

    def inventory(self, hosts: Mapping[str, Mapping[str, Any]]) -> Path:
        """An inventory file of local hosts with these variables."""
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "ansible_pipelining": True,
        }
        path = self.bench.folder / f"{uuid.uuid4().hex[:8]}.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": common, "hosts": dict(hosts)}}))
        return path

    def run(self, **options: Any) -> Ran:
        """Bring the domains to what is wanted; the inventory is written before the time runs."""
        raise NotImplementedError

    def revisions(self) -> int:
        """Records of releases in all domains: one more for each install and upgrade."""
        count = 0
        for host, name in self.spaces.items():
            for space in (name, name + _modules.METERS):
                selected = ("get", "secrets", "-n", space, "-l", "owner=helm", "-o", "name")
                count += len(self.hosts[host].kubectl(*selected).split())
        return count

    def expect(self, ran: Ran, revisions: int, changed: bool) -> None:
        """Raises AssertionError when something else than what should changed."""
        there, hosts = self.revisions(), len(self.hosts) if changed else 0
        if there != revisions or ran.changed != hosts:
            raise AssertionError(f"{type(self).__name__}: {there} revisions, not {revisions}; {ran.changed} changed")


class Ours(Side):
    def run(self, **options: Any) -> Ran:
        return self.bench.play([OURS, "-i", self.inventory(self.ours()), PROJECT / "playbooks/deploy.yml"], **options)


class KubernetesCore(Side):
    def __init__(self, bench: Bench, clusters: Sequence[Cluster], space: str) -> None:
        super().__init__(bench, clusters, space)
        for host, cluster in self.hosts.items():
            for release in self.releases(host):
                for secret in release["secrets"]:
                    data = dict.fromkeys(secret["data"], "benchmark")
                    thing = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret["name"]}}
                    cluster.apply({**thing, "stringData": data}, namespace=release["namespace"])

    def run(self, **options: Any) -> Ran:
        keys = ("name", "chart", "namespace", "values")
        hosts = {
            host: {
                "kubeconfig": str(cluster.kubeconfig),
                "context": cluster.context,
                "releases": [{key: release[key] for key in keys} for release in self.releases(host)],
            }
            for host, cluster in self.hosts.items()
        }
        return self.bench.play([PEER, "-i", self.inventory(hosts), self.bench.playbook(PEER_PLAY)], **options)


class Bench:
    """What all measurements share: the clusters, a folder, and how ansible-playbook is run."""

    def __init__(self, clusters: Mapping[str, Cluster], folder: Path, rounds: int) -> None:
        self.clusters = clusters
        self.folder = folder
        self.rounds = rounds
        self.installs = min(INSTALLS, rounds)
        self.name = f"bench-{uuid.uuid4().hex[:6]}"
        self.spaces: list[tuple[Cluster, str]] = []
        self.instant = folder / "instant"
        self.instant.mkdir()
        (self.instant / "helm").write_text(INSTANT_HELM)
        (self.instant / "helm").chmod(0o700)

    def playbook(self, text: str) -> Path:
        path = self.folder / f"{uuid.uuid4().hex[:8]}-play.yml"
        path.write_text(text)
        return path

    def play(
        self,
        command: Sequence[Path | str],
        *,
        forks: int = DEFAULT_FORKS,
        measured: bool = False,
        helm: Path | None = None,
        **variables: Any,
    ) -> Ran:
        """Run ansible-playbook in a session of its own. Raises RuntimeError when it fails or takes LIMIT_S."""
        homes = {f"HELM_{what}_HOME": str(self.folder / "helm" / what.lower()) for what in ("CACHE", "CONFIG", "DATA")}
        variables_for = environment(
            **homes,
            PATH=f"{helm or tools()['helm4']}{os.pathsep}{os.environ['PATH']}",
            ANSIBLE_DEPRECATION_WARNINGS="false",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_FORKS=str(forks),
            ANSIBLE_LOCAL_TEMP=str(self.folder / "ansible"),
            KUBECACHEDIR=str(self.folder / "kube"),
        )
        words = [*map(str, command), *(["-e", json.dumps(variables)] if variables else [])]
        output, memory = self.folder / "output", Peaks()
        with output.open("w+") as written:
            start, burnt_s = time.monotonic(), _cpu_s()
            process = subprocess.Popen(
                words,
                cwd=PROJECT,
                env=variables_for,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                with memory.of(process.pid) if measured else contextlib.nullcontext():
                    process.wait(LIMIT_S)
                seconds, cpu_s = time.monotonic() - start, _cpu_s() - burnt_s
            except BaseException as error:
                _end(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise RuntimeError(f"{words}: no end within {LIMIT_S} s") from None
                raise
        said = output.read_text()
        if process.returncode:
            raise RuntimeError(f"{words} failed:\n{said[-4000:]}")
        recap = [line for line in said.splitlines() if " changed=" in line]
        return Ran(seconds, cpu_s, sum(" changed=0 " not in line for line in recap), memory)

    def clear(self) -> None:
        """Remove all namespaces and what prepare.yml made for them, and wait until they are gone."""
        begun, self.spaces = self.spaces, []
        for cluster in {id(cluster): cluster for cluster, _ in begun}.values():
            mine = [name for owner, name in begun if owner is cluster]
            bindings = cluster.kubectl("get", "clusterrolebinding", "-o", "name").split()
            bound = [each for each in bindings if any(each.endswith(f"-{name}") for name in mine)]
            if bound:
                cluster.kubectl("delete", *bound)
            doomed = [space for name in mine for space in (name, name + _modules.METERS)]
            cluster.kubectl("delete", "namespace", *doomed, "--ignore-not-found", "--wait=false")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and any(
            f"{self.name}-" in cluster.kubectl("get", "namespaces", "-o", "name") for cluster, _ in begun[:3]
        ):
            time.sleep(1)

    def turns(self, sides: Sequence[Side], rounds: int, do: Callable[[Side], Ran]) -> list[list[Ran]]:
        """The runs of each side, one a round; who begins changes from round to round."""
        runs: list[list[Ran]] = [[] for _ in sides]
        for number in range(rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                runs[side].append(do(sides[side]))
        return runs


def main(rounds: int = ROUNDS) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = os.environ.get("HXMLOPS_CLUSTERS")
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clusters = found(Path(folder)) if folder else stack.enter_context(running())
        bench = Bench(clusters, temporary, min(rounds, MOST_ROUNDS))
        if folder:
            stack.callback(bench.clear)
        three(bench)
        bench.clear()
        thirty(bench)


def three(bench: Bench) -> None:
    """Both sides in three domains; then what the engine costs by itself."""
    clusters = [bench.clusters[name] for name in DOMAINS]
    count = len(MODULES) * len(clusters)
    installs: list[list[Ran]] = [[], []]
    for number in range(bench.installs):
        peer = KubernetesCore(bench, clusters, f"{bench.name}-peer-{number}")
        ours = Ours(bench, clusters, f"{bench.name}-ours-{number}")

        def install(side: Side) -> Ran:
            ran = side.run()
            side.expect(ran, count, changed=True)
            return ran

        sides: list[Side] = [peer, ours]
        for side in sides if number % 2 == 0 else reversed(sides):
            installs[sides.index(side)].append(install(side))

    def unchanged(side: Side) -> Ran:
        before = side.revisions()
        ran = side.run()
        side.expect(ran, before, changed=False)
        return ran

    def change(side: Side) -> Ran:
        before, side.turn = side.revisions(), side.turn + 1
        ran = side.run()
        side.expect(ran, before + len(side.hosts), changed=True)
        return ran

    same = bench.turns(sides, bench.rounds, unchanged)
    one = bench.turns(sides, bench.rounds, change)

    table = Table(title=f"{len(MODULES)} releases in each of 3 domains, medians, s", title_justify="left")
    for heading in ("what", "runs", "kubernetes.core.helm", "CPU s", "ours", "CPU s", "times as fast", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, (theirs, mine), target in (
        ("unchanged", same, 10),
        ("first install, until ready", installs, 3),
        (f"one value changed ({CHANGED})", one, 5),
    ):
        figures = [figure for runs in (theirs, mine) for figure in (spread(runs), work(runs))]
        table.add_row(what, str(len(mine)), *figures, f"{middle(theirs) / middle(mine):.1f}", f">= {target}")
    show(table)

    empty: list[Path | str] = [OURS, "-i", ours.inventory(ours.ours()), bench.playbook(EMPTY_PLAY)]
    floor = [bench.play(empty) for _ in range(bench.rounds)]
    instant = []
    for number in range(bench.installs):
        side = Ours(bench, clusters, f"{bench.name}-instant-{number}")
        command: list[Path | str] = [OURS, "-i", side.inventory(side.ours()), bench.playbook(WITHOUT_WAITING)]
        instant.append(bench.play(command, helm=bench.instant))
    table = Table(title="What the engine costs by itself, 3 domains, medians, s", title_justify="left")
    table.add_column("what")
    table.add_column("s", justify="right")
    table.add_row("an empty play on the same inventory", spread(floor))
    table.add_row("unchanged, beyond the empty play", f"{middle(same[1]) - middle(floor):.2f}")
    table.add_row("first install by an instant helm, Secrets made, no waiting", spread(instant))
    beyond = middle(instant) - middle(floor)
    table.add_row("   beyond the empty play, for each release", f"{beyond / count:.3f}")
    show(table)


def thirty(bench: Bench) -> None:
    """Ours alone in thirty domains, ten on each API server."""
    clusters = [bench.clusters[DOMAINS[number % len(DOMAINS)]] for number in range(MANY)]
    side = Ours(bench, clusters, f"{bench.name}-many")
    count = len(MODULES) * MANY
    first = side.run()
    side.expect(first, count, changed=True)
    table = Table(title=f"Ours: {len(MODULES)} releases in each of {MANY} domains", title_justify="left")
    for heading in ("what", "forks", "s", "RSS of all processes, MB", "of the biggest", "PSS of all"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row("first install, until ready", str(DEFAULT_FORKS), f"{first.seconds:.1f}", "", "", "")
    for forks in (DEFAULT_FORKS, MANY):
        runs = []
        for _ in range(bench.installs):
            ran = side.run(forks=forks)
            side.expect(ran, count, changed=False)
            runs.append(ran)
        memory = side.run(forks=forks, measured=True).memory
        megabytes = [f"{figure:,.0f}" for figure in (memory.all, memory.biggest, memory.shared_once)]
        table.add_row("unchanged", str(forks), spread(runs), *megabytes)
    show(table)


def middle(runs: Sequence[Ran]) -> float:
    """Median of their seconds."""
    return statistics.median(ran.seconds for ran in runs)


def spread(runs: Sequence[Ran]) -> str:
    """Median of their seconds, and best and worst where there are several."""
    seconds = sorted(ran.seconds for ran in runs)
    return f"{middle(runs):.2f}" + (f" ({seconds[0]:.2f}-{seconds[-1]:.2f})" if len(seconds) > 1 else "")


def work(runs: Sequence[Ran]) -> str:
    """Median of their CPU seconds."""
    return f"{statistics.median(ran.cpu_s for ran in runs):.1f}"


def show(table: Table) -> None:
    console = Console()
    Console(width=max(console.width, 120)).print(table)


@dataclass
class Peaks:
    """The most memory in MB that a process with all below it had at one time."""

    all: float = 0.0  # sum of RSS, which counts shared pages for each process
    biggest: float = 0.0  # RSS of one process
    shared_once: float = 0.0  # sum of PSS

    @contextlib.contextmanager
    def of(self, root: int) -> Iterator[None]:
        """Look at the process every SAMPLE_S for the time of the block."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(SAMPLE_S):
                figures = [_megabytes(process) for process in _tree(root)]
                self.all = max(self.all, sum(rss for rss, _ in figures))
                self.biggest = max(self.biggest, *(rss for rss, _ in figures))
                self.shared_once = max(self.shared_once, sum(pss for _, pss in figures))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _cpu_s() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    tree = [root]
    for process in tree:
        tree += children.get(process, [])
    return tree


def _megabytes(process: int) -> tuple[float, float]:
    """(RSS, PSS) of a process; nothing where it has ended."""
    with contextlib.suppress(OSError):
        lines = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
        kilobytes = {words[0]: int(words[1]) for words in lines}
        return kilobytes["Rss:"] / 1000, kilobytes["Pss:"] / 1000
    return 0.0, 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an ansible-playbook that takes too long, and what it started."""
    for each in reversed(_tree(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
