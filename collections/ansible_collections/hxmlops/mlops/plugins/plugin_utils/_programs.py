# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The programs that the collection runs: which Python has them, which code that is, and their answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import digest_of, sha256_file

STAGES = ("hxmlops_evidence", "hxmlops_recipe", "hxmlops_sharing", "hxmlops_stages")
_FIND = (
    "import importlib.util, json, sys, sysconfig; "
    "specs = [importlib.util.find_spec(name) for name in sys.argv[1:]]; "
    "print(json.dumps([sysconfig.get_path('purelib'), *(spec and spec.origin for spec in specs)]))"
)


class ProgramError(Exception):
    """A program of ours failed; the text is its own one line. `code` is its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def environment() -> dict[str, str]:
    """The environment of our programs: UTF-8, and nothing of Ansible's or of this Python's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
    return {**kept, "PYTHONUTF8": "1"}


def call(python: str, *arguments: str) -> str:
    """Run ``python -m ARGUMENTS``; answer what it prints. Raises ProgramError with its last line."""
    done = subprocess.run(
        [python, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise ProgramError(lines[-1], done.returncode)
    return done.stdout


def code_digests(python: str, packages: Sequence[str] = STAGES, lock: str | None = None) -> dict[str, str]:
    """Digests of the programs' own code, in these packages, and of the libraries beside it.

    They are part of every stage's key: with other code or other libraries, compute is done again. The libraries are
    those that the lock file pins, or, without one, all that are installed beside the programs.
    """
    site, *origins = _locations(python, packages)
    code = {}
    for name, origin in zip(packages, origins, strict=True):
        if not origin:
            raise ProgramError(
                f"{python} has no {name}: install the project's Python packages there, or set hxmlops_python to a "
                "Python that has them",
                1,
            )
        folder = Path(origin).parent
        for file in sorted(folder.rglob("*.py")):
            code[f"{name}/{file.relative_to(folder).as_posix()}"] = sha256_file(file)
    installed = sorted(path.name for path in Path(str(site)).glob("*.dist-info"))
    return {"programs": digest_of(code), "libraries": sha256_file(Path(lock)) if lock else digest_of(installed)}


def _locations(python: str, packages: Sequence[str]) -> list[str | None]:
    """site-packages of a Python, and where it finds the packages (None for one that it does not have)."""
    if Path(python).absolute() == Path(sys.executable).absolute():
        specs = [importlib.util.find_spec(name) for name in packages]
        return [sysconfig.get_path("purelib"), *(spec.origin if spec else None for spec in specs)]
    try:
        done = subprocess.run(
            [python, "-c", _FIND, *packages], capture_output=True, text=True, check=True, env=environment()
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProgramError(f"hxmlops_python {python} does not run: {error}", 1) from None
    return list(json.loads(done.stdout))
