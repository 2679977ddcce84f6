"""Resumable uploads beside kills and a second server: what was recorded is there, and memory stays flat."""

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from faults import BYTES, MIB, files_of, sha256
from tus_client import create, in_database, offset, patch, register

from hxmlops_sharing import files
from hxmlops_sharing.tables import objects, uploads

ALL_BACKENDS = True

type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_sigkill_at_random_moments(
    tmp_path: Path, place: dict[str, Any], start_process: StartProcess, seed: int
) -> None:
    """What was recorded is there afterwards, what was answered was recorded, and the file comes out whole."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    data = chance.randbytes(24 * MIB)
    url, place_, kills = "", 0, 0
    while place_ < len(data):
        with start_process(**place) as (process, api):
            if not url:
                url = create(api, len(data))
            else:
                now = offset(api, url)
                assert now >= place_
                place_ = now
            if kills < 5:
                kills += 1
                threading.Timer(chance.uniform(0, 0.3), process.send_signal, [signal.SIGKILL]).start()
            with contextlib.suppress(httpx.TransportError):
                while place_ < len(data):
                    size = chance.choice([1, 1000, MIB, 5 * MIB])
                    answer = patch(api, url, place_, data[place_ : place_ + size])
                    assert answer.status_code == 204
                    place_ = int(answer.headers["Upload-Offset"])
            if place_ == len(data) and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    record = register(api, url, sha256=sha256(data))
                    assert record.json()["sha256"] == sha256(data)
    with start_process(**place) as (_, api):
        identifier = register(api, url, sha256=sha256(data)).json()["modelIdentifier"]
        assert identifier == 1 or "://" in place["database"]  # PostgreSQL skips that of a killed transaction
        assert api.get(f"/api/v1/model/{identifier}").content == data
        records = api.get("/api/v1/model_catalog").json()["models"]
        assert [each["modelIdentifier"] for each in records] == [identifier]
    rows, stored = in_database(place, uploads, objects)
    assert rows == []
    if "://" not in place["store"]:
        there = files_of(tmp_path / "store")
        assert all(there[location] == size for location, size in stored[0].segments)


@pytest.mark.slow
def test_two_servers_on_one_database_and_store(
    tmp_path: Path, place: dict[str, Any], start_process: StartProcess
) -> None:
    """Of two that send at once one wins, wherever it sends; what is not recorded is removed."""
    chance = random.Random(1)  # noqa: S311 (no secret)
    with start_process(**place) as (_, one):
        (tmp_path / "log").rename(tmp_path / "log.one")
        with start_process(**place) as (_, two):
            url, place_, expected = create(one, 40 * 1000), 0, b""
            while place_ < 40 * 1000:
                answers: dict[bytes, httpx.Response] = {}

                def send(api: httpx.Client, data: bytes) -> None:
                    answers[data[:1]] = patch(api, url, place_, data)  # noqa: B023

                bodies = [bytes([letter]) * chance.choice([500, 1000]) for letter in b"abcd"]
                bodies = [body[: 40 * 1000 - place_] for body in bodies]
                threads = [
                    threading.Thread(target=send, args=(api, body))
                    for api, body in zip([one, two, one, two], bodies, strict=True)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                won = [body for body in bodies if answers[body[:1]].status_code == 204]
                assert len(won) == 1
                assert {answer.status_code for answer in answers.values()} <= {204, 409, 423}
                expected += won[0]
                place_ += len(won[0])
                assert offset(one, url) == offset(two, url) == place_
            assert register(two, url).json()["sha256"] == sha256(expected)
            assert one.get("/api/v1/model/1").content == expected
    [[row]] = in_database(place, objects)
    if "://" not in place["store"]:
        assert files_of(tmp_path / "store") == dict(row.segments)


@pytest.mark.slow
def test_memory_is_flat(place: dict[str, Any], start_process: StartProcess) -> None:
    def peak(process: subprocess.Popen[bytes]) -> int:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[0]) >> 10

    block = os.urandom(MIB)
    with start_process(**place) as (process, api):
        patch(api, create(api, 4 * MIB), 0, block * 4)
        before = peak(process)
        url = create(api, 256 * MIB)
        for place_ in (0, 128 * MIB):
            answer = api.patch(
                url,
                content=(block for _ in range(128)),
                headers=BYTES | {"Upload-Offset": str(place_)},
                timeout=60,
            )
            assert answer.status_code == 204
        assert peak(process) - before < 40
    assert max(size for _, size in in_database(place, uploads)[0][1].segments) <= files.SEGMENT
