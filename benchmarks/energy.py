"""Energy accounting: what it costs a stage, and what it makes of a tree of short children, beside CodeCarbon.

    .venv/bin/python benchmarks/energy.py

CodeCarbon gets a virtual environment of its own, `.venv-benchmarks`, from requirements/benchmarks.txt. It is told
its place offline, so that no look-up counts against it; one more run shows which place it takes untold.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-benchmarks"
CHILDREN, CHILD_CPU_S = 8, 0.3
RUNS, PEER_RUNS, TREE_RUNS = 50, 5, 5

Figures = dict[str, Any]

# Both programs time their meter around the same work and print JSON. The children say what they burnt.
WORK = f"""
import json, subprocess, sys, time
CHILD = "import time\\nwhile time.process_time() < {CHILD_CPU_S}: pass\\nprint(time.process_time())"
def work():
    if "idle" in sys.argv:
        time.sleep(0.2)
        return 0.0
    child = [sys.executable, "-S", "-E", "-c", CHILD]
    return sum(float(subprocess.run(child, stdout=subprocess.PIPE).stdout) for _ in range({CHILDREN}))
begun = time.perf_counter()
"""
OURS = """
from hxmlops_stages.energy import DEFAULT, Meter
imported, cpu_s = time.perf_counter(), time.process_time()
meter = Meter("NO", cgroups="sampled" not in sys.argv)
meter.start()
started = time.perf_counter()
burnt_s = work()
ended = time.perf_counter()
record = meter.stop()
cost_s = time.process_time() - cpu_s
print(json.dumps({"import_s": imported - begun, "start_s": started - imported, "stop_s": time.perf_counter() - ended,
    "cost_cpu_s": cost_s, "burnt_s": burnt_s, "cpu_j": record["cpu_s"] * DEFAULT["active_w_per_vcpu"],
    "all_j": record["energy_j"], "watts": DEFAULT["active_w_per_vcpu"], "place": "NO", "source": record["source"]}))
"""
CODECARBON = """
from codecarbon import EmissionsTracker, OfflineEmissionsTracker
imported, cpu_s = time.perf_counter(), time.process_time()
options = {"tracking_mode": "process", "save_to_file": False, "log_level": "critical"}
told = lambda: OfflineEmissionsTracker(country_iso_code="NOR", **options)
tracker = EmissionsTracker(**options) if "untold" in sys.argv else told()
tracker.start()
started = time.perf_counter()
burnt_s = work()
ended = time.perf_counter()
tracker.stop()
stopped = time.perf_counter()
cost_s = time.process_time() - cpu_s
said = tracker.final_emissions_data
cpus = [one for one in tracker._hardware if type(one).__name__ == "CPU"]
print(json.dumps({"import_s": imported - begun, "start_s": started - imported, "stop_s": stopped - ended,
    "cost_cpu_s": cost_s, "burnt_s": burnt_s, "cpu_j": said.cpu_energy * 3.6e6, "all_j": said.energy_consumed * 3.6e6,
    "watts": cpus[0]._tdp / cpus[0]._cpu_count, "place": said.country_name, "source": "CodeCarbon, process mode"}))
"""


def main() -> None:
    peer = codecarbon()
    cost = {
        "ours, cgroup": [run(sys.executable, OURS, "idle") for _ in range(RUNS)],
        "ours, sampled": [run(sys.executable, OURS, "idle", "sampled") for _ in range(RUNS)],
        "CodeCarbon": [run(peer, CODECARBON, "idle") for _ in range(PEER_RUNS)],
    }
    trees = {
        "ours, cgroup": [run(sys.executable, OURS) for _ in range(TREE_RUNS)],
        "ours, sampled": [run(sys.executable, OURS, "sampled") for _ in range(TREE_RUNS)],
        "CodeCarbon, process mode": [run(peer, CODECARBON) for _ in range(TREE_RUNS)],
    }
    print_table(
        f"Cost of accounting for one stage (medians of {RUNS}; CodeCarbon of {PEER_RUNS}), ms",
        ("meter", "import", "start", "stop", "start + stop", "of it CPU", "reads"),
        [(name, *cost_row(runs)) for name, runs in cost.items()],
    )
    print_table(
        f"{CHILDREN} children of {CHILD_CPU_S} s CPU time, one after another (medians of {TREE_RUNS})",
        ("meter", "burnt, CPU s", "W per CPU", "true J of CPU", "J of CPU", "found", "J in all"),
        [(name, *tree_row(runs)) for name, runs in trees.items()],
    )
    untold = run(peer, CODECARBON, "idle", "untold")
    print(f"Place that CodeCarbon takes when nobody tells it: {untold['place']}. Ours refuses to guess.")


def codecarbon() -> str:
    """The Python in whose environment CodeCarbon is, made when missing."""
    python = VENV / "bin" / "python"
    if not python.exists():
        uv = str(ROOT / ".uv" / "bin" / "uv") if (ROOT / ".uv" / "bin" / "uv").exists() else shutil.which("uv") or "uv"
        lock = ROOT / "requirements" / "benchmarks.txt"
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(VENV)], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--require-hashes", "-r", str(lock)],
            env=os.environ | {"VIRTUAL_ENV": str(VENV)},
            check=True,
        )
    return str(python)


def run(python: str, program: str, *arguments: str) -> Figures:
    done = subprocess.run(
        [python, "-c", WORK + program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def cost_row(runs: list[Figures]) -> list[str]:
    both = statistics.median(one["start_s"] + one["stop_s"] for one in runs)
    times = [median(runs, key) for key in ("import_s", "start_s", "stop_s")] + [both, median(runs, "cost_cpu_s")]
    return [f"{1000 * seconds:.1f}" for seconds in times] + [runs[0]["source"].split(",")[0]]


def tree_row(runs: list[Figures]) -> list[str]:
    found = sorted(100 * one["cpu_j"] / (one["burnt_s"] * one["watts"]) for one in runs)
    true_j = statistics.median(one["burnt_s"] * one["watts"] for one in runs)
    return [
        f"{median(runs, 'burnt_s'):.2f}",
        f"{runs[0]['watts']:.2f}",
        f"{true_j:.2f}",
        f"{median(runs, 'cpu_j'):.2f}",
        f"{found[0]:.0f} to {found[-1]:.0f} %",
        f"{median(runs, 'all_j'):.2f}",
    ]


def median(runs: list[Figures], key: str) -> float:
    return statistics.median(float(one[key]) for one in runs)


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
