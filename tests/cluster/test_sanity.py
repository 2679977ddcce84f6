"""`ansible-test sanity` on the collection: every test of it, with the Python and ansible-core of this environment.

Two of them say less than they could: `compile` and `import` are for one Python, and `shellcheck` and `pslint` find no
file of theirs. What is ignored, and why, stands in the collection's `tests/sanity/ignore-*.txt`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charts.pack import COLLECTION
from tests.cluster.clusters import environment

PROGRAMS = Path(sys.executable).parent
# ansible-test makes an environment for each test here, from pinned packages: a minute at first, seconds afterwards
HOME = Path.home() / ".cache" / "hxmlops" / "ansible-test"
# it would download this file, of the version that ansible-core 2.21 names; the pip that Python brings does as well
GET_PIP = HOME / ".ansible" / "test" / "cache" / "get_pip_25_2.py"
OWN_PIP = """\
import subprocess, sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
"""


@pytest.mark.timeout(900)  # a fresh and busy machine
def test_the_collection_is_sane(tmp_path: Path) -> None:
    """In a copy outside of git, where ansible-test takes every file that is there."""
    collection = tmp_path / "ansible_collections" / "hxmlops" / "mlops"
    shutil.copytree(COLLECTION, collection, ignore=shutil.ignore_patterns("__pycache__", ".ansible"))
    GET_PIP.parent.mkdir(parents=True, exist_ok=True)
    GET_PIP.write_text(OWN_PIP)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = subprocess.run(
        [PROGRAMS / "ansible-test", "sanity", "--local", "--requirements", "--python", python, "--color", "no"],
        cwd=collection,
        env=environment(HOME=str(HOME), PATH=os.pathsep.join([str(PROGRAMS), "/usr/bin", "/bin"])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
