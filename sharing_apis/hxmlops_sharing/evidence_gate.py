"""What an upload must prove before it is registered, and what it does prove."""

import asyncio
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog
from anyio.lowlevel import RunVar

from hxmlops_evidence.signature import LARGEST_DOCUMENT
from hxmlops_sharing.examination import Findings, unexamined
from hxmlops_sharing.incoming import Content
from hxmlops_sharing.problems import DISK_FULL, Problem
from hxmlops_sharing.reading import Run, read_runs
from hxmlops_sharing.settings import ENVIRONMENT, Settings
from hxmlops_sharing.store import Store

LARGEST_UNASKED = 1 << 30
"""Bytes of a model that is looked into though nothing is required of it."""
LONGEST_S = 1200
"""Seconds that an examination may take."""

_NEEDS = {"signature": ("archive", "signature", "digests"), "bom": ("archive", "bom"), "format": ("archive", "format")}
_turn: RunVar[anyio.CapacityLimiter] = RunVar("_turn")

log = structlog.get_logger("hxmlops_sharing")


async def examine(
    settings: Settings, store: Store, files: Sequence[Content], metadata: Mapping[str, Any]
) -> Findings | None:
    """The findings about a model's file, or a dataset and its data model; None where no keys are pinned.

    A `statement` in the metadata's characteristics or parameters must be the one that came with the bytes. Problem 422
    `evidence-refused` when something that `settings.require` names does not hold. Examinations take turns.
    """
    if settings.trust is None:
        return None
    said = metadata["characteristics" if settings.kind == "model" else "parameters"].get("statement")
    reason = await _not_there(settings, store, files)
    if reason:
        findings = unexamined(settings.kind, reason)
    else:
        async with _in_turn(), _scratch() as scratch:
            findings = await _examined(settings, store, files, said, scratch)
    for word in settings.require:
        for each in findings["criteria"]:
            if each["criterion"] in _NEEDS[word] and not each["passed"]:
                raise Problem(422, "evidence-refused", f"{each['criterion']}: {each['detail']}")
    return findings


async def _not_there(settings: Settings, store: Store, files: Sequence[Content]) -> str:
    """Why there is nothing to examine, by the first bytes; empty when there is."""
    if settings.kind == "dataset":
        if files[1].size > LARGEST_DOCUMENT or not (await _head(store, files[1])).lstrip().startswith(b"{"):
            return "the data model is no signed statement"
        return ""
    try:
        tarfile.TarInfo.frombuf(await _head(store, files[0]), "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        return "the file is no tar of a model with its evidence"
    if files[0].size > LARGEST_UNASKED and not settings.require:
        return f"not looked into: larger than {LARGEST_UNASKED >> 20} MiB"
    return ""


async def _head(store: Store, content: Content) -> bytes:
    left, head = tarfile.BLOCKSIZE, b""
    for segment in content.segments:
        async for block in read_runs(store, [Run(location=segment.location, stop=min(left, segment.size))]):
            head += block
        left = tarfile.BLOCKSIZE - len(head)
        if not left:
            break
    return head


async def _examined(
    settings: Settings, store: Store, files: Sequence[Content], statement: Any, scratch: Path
) -> Findings:
    job = {
        "kind": settings.kind,
        "file": str(await _file(store, files[-1], scratch)),
        "sha256": files[0].sha256,
        "scratch": str(scratch),
        "trust": str(settings.trust),
        "formats": settings.formats,
        "allow_pickles": settings.allow_pickles,
        "statement": statement,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "hxmlops_sharing.examination",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST_S):
            output, errors = await process.communicate(json.dumps(job).encode())
    except TimeoutError:
        return unexamined(settings.kind, f"not done after {LONGEST_S} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        findings: Findings = json.loads(output)
        return findings
    reason = errors.decode(errors="replace").strip()
    log.error("examination", exit_code=process.returncode, reason=reason[-2000:])
    if process.returncode == 1 and not reason.startswith("Traceback"):
        if any(os.strerror(number) in reason for number in DISK_FULL):
            raise Problem(507, "storage-full", "no room left to examine this upload: tell the owner of this server")
        raise Problem(503, "evidence-unavailable", "the server cannot examine uploads now: tell its owner")
    return unexamined(settings.kind, "it took more memory or time than is allowed, or broke what examines it")


async def _file(store: Store, content: Content, scratch: Path) -> Path:
    """A file with these bytes: the store's own, or a copy."""
    if len(content.segments) == 1 and (path := store.path(content.segments[0].location)):
        return path
    copy = scratch / "file"
    runs = [Run(location=segment.location, stop=segment.size) for segment in content.segments]
    async with await anyio.open_file(copy, "xb") as file:
        async for block in read_runs(store, runs):
            await file.write(block)
    return copy


@asynccontextmanager
async def _in_turn() -> AsyncIterator[None]:
    try:
        limiter = _turn.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(1)
        _turn.set(limiter)
    async with limiter:
        yield


@asynccontextmanager
async def _scratch() -> AsyncIterator[Path]:
    """A folder for this user alone, gone afterwards."""
    folder = await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "hxmlops-examination-")
    try:
        yield Path(folder)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, folder, True)
