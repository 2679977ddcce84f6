"""What goes wrong leaves nothing half done: no record, no visible bytes, no temporary file."""

import errno
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy.exc import OperationalError

from hxmlops_sharing.folder_store import IncomingFile
from hxmlops_sharing.registry import Registry

type Start = Callable[..., AbstractContextManager[httpx.Client]]
type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]

type ProcessApi = tuple[subprocess.Popen[bytes], httpx.Client, Path]

MIB = 1 << 20
FORM_WITHOUT_END = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx'


def upload(api: httpx.Client, data: bytes = b"bytes", version: str = "1") -> httpx.Response:
    return api.post("/api/v1/model", data={"name": "churn", "version": version}, files={"file": data})


def files(folder: Path, kind: str) -> list[Path]:
    """Files of a store, `incoming` or `objects`."""
    return [path for path in (folder / "store" / kind).rglob("*") if path.is_file()]


def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


def begin_upload(api: httpx.Client) -> socket.socket:
    """Send half an upload of 8 MiB; the server waits for the rest."""
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    connection.sendall(
        b"POST /api/v1/model?name=churn&version=1 HTTP/1.1\r\nHost: a\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 8388608\r\n\r\n" + b"x" * 4 * MIB
    )
    return connection


def assert_nothing_is_there(api: httpx.Client, folder: Path) -> None:
    until(lambda: not files(folder, "incoming"))
    assert files(folder, "objects") == []
    assert api.get("/api/v1/model_catalog").status_code == 404


def test_a_client_that_leaves_mid_upload(models: httpx.Client, tmp_path: Path) -> None:
    with begin_upload(models):
        until(lambda: files(tmp_path, "incoming"))
    assert_nothing_is_there(models, tmp_path)
    assert upload(models).json()["modelIdentifier"] == 1


@pytest.mark.parametrize("body", [b"garbage", b"--b\r\n\r\n", FORM_WITHOUT_END])
def test_a_garbage_body(models: httpx.Client, tmp_path: Path, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = models.post("/api/v1/model", content=body + b"x" * 2 * MIB, headers=headers)
    assert answer.status_code == 400
    assert_nothing_is_there(models, tmp_path)


def test_sigkill_mid_upload_then_restart(start_process: StartProcess, start: Start, tmp_path: Path) -> None:
    with start_process() as (process, api):
        before = upload(api, version="0").json()
        objects = files(tmp_path, "objects")
        with begin_upload(api):
            until(lambda: files(tmp_path, "incoming"))
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert files(tmp_path, "incoming") != []
    with start() as api:
        assert files(tmp_path, "incoming") == []
        assert files(tmp_path, "objects") == objects
        assert api.get("/api/v1/model_catalog").json() == {"models": [before]}
        assert upload(api).status_code == 200


def test_a_server_that_starts_leaves_uploads_of_a_living_one_alone(
    models: httpx.Client, start: Start, tmp_path: Path
) -> None:
    with begin_upload(models) as connection:
        until(lambda: files(tmp_path, "incoming"))
        with start():
            assert files(tmp_path, "incoming") != []
        connection.sendall(b"x" * 4 * MIB)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_full_disk_is_507_and_the_server_goes_on(
    process_api: ProcessApi,
) -> None:
    process, api, folder = process_api
    before = files(folder, "objects")
    prlimit(process.pid, RLIMIT_FSIZE, (2 * MIB, RLIM_INFINITY))  # no file may grow beyond
    answer = upload(api, b"x" * 4 * MIB, version="full")
    assert answer.status_code == 507
    assert answer.json()["detail"] == "no room left for this upload: tell the owner of this server"
    assert (files(folder, "incoming"), files(folder, "objects")) == ([], before)
    prlimit(process.pid, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
    assert upload(api, b"x" * 4 * MIB, version="full").status_code == 200


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_while_writing(
    models: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    blocks = itertools.count()
    append = IncomingFile._append

    def fail(self: IncomingFile, block: bytes) -> None:
        if next(blocks) == 2:
            raise OSError(number, os.strerror(number))
        append(self, block)

    monkeypatch.setattr(IncomingFile, "_append", fail)
    assert upload(models, b"x" * 4 * MIB).status_code == 507
    assert_nothing_is_there(models, tmp_path)


def test_the_bytes_go_when_the_record_cannot_be_written(
    models: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise OperationalError("insert", {}, Exception("the database is gone"))

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "_audit", fail)
        answer = upload(models)
        assert answer.status_code == 500
        assert "gone" not in answer.text
        assert_nothing_is_there(models, tmp_path)
    assert upload(models).json()["modelIdentifier"] == 1


def test_lost_bytes_are_said_and_a_repeated_upload_heals_them(models: httpx.Client, tmp_path: Path) -> None:
    upload(models)
    (path,) = files(tmp_path, "objects")
    path.write_bytes(b"cut")
    answer = models.get("/api/v1/model/1")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "the bytes of this version are lost: tell the owner of this server"
    upload(models)
    assert models.get("/api/v1/model/1").content == b"bytes"


def test_equal_uploads_at_once_make_one_record(models: httpx.Client, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upload(models, data), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["modelIdentifier"] for answer in answers} == {1}
    assert len(files(tmp_path, "objects")) == 1


def test_of_different_uploads_of_a_version_at_once_one_wins(models: httpx.Client, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: upload(models, bytes([number])), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert len(files(tmp_path, "objects")) == 1


def test_bytes_shared_by_versions_survive_deletions_at_once(models: httpx.Client) -> None:
    """One version comes and goes, others with the same bytes come: none of these loses its bytes."""
    stop = threading.Event()

    def come_and_go() -> Iterator[int]:
        while not stop.is_set():
            identifier = upload(models, version="passing").json()["modelIdentifier"]
            yield models.delete(f"/api/v1/model/{identifier}?version=passing").status_code

    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(lambda: list(come_and_go()))
        for number in range(6):
            upload(models, version=str(number))
            assert models.get("/api/v1/model_catalog").json()["models"]
            stayed = models.get("/api/v1/model_catalog", params={"version": str(number)}).json()["models"][0]
            assert models.get(f"/api/v1/model/{stayed['modelIdentifier']}?version={number}").content == b"bytes"
            models.delete(f"/api/v1/model/{stayed['modelIdentifier']}?version={number}")
        stop.set()
        assert set(passing.result()) == {200}


def test_a_download_goes_on_when_its_version_is_deleted(models: httpx.Client) -> None:
    data = os.urandom(16 * MIB)
    upload(models, data)
    with models.stream("GET", "/api/v1/model/1") as answer:
        body = answer.iter_bytes()
        received = next(body)
        assert models.delete("/api/v1/model/1?version=1").status_code == 200
        assert received + b"".join(body) == data
