"""A full disk, of the store or of the database, is answered 507; nothing is lost, and with room again all goes on."""

import contextlib
import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit

import httpx2 as httpx
import pytest
from faults import (
    BYTES,
    MIB,
    TUS,
    Client,
    Server,
    assert_nothing_is_there,
    audit_of,
    files_of,
    given_of,
    places,
    upload,
)

from hxmlops_sharing.folder_store import FileWriter

type Start = Callable[..., AbstractContextManager[httpx.Client]]


def test_a_limit_of_files_is_507_and_the_server_goes_on(tmp_path: Path) -> None:
    settings = places(tmp_path)
    server = Server(settings, tmp_path / "log")
    with server, httpx.Client(base_url=server.url, timeout=60, verify=False) as api:
        pid = server.process.pid
        assert pid is not None
        prlimit(pid, RLIMIT_FSIZE, (2 * MIB, RLIM_INFINITY))  # no file may grow beyond
        answer = upload(api, b"x" * 4 * MIB)
        assert answer.status_code == 507
        assert answer.json()["detail"] == "no room left for this upload: tell the owner of this server"
        assert files_of(Path(settings.store)) == {}
        location = api.post("/api/v1/files", headers=TUS | {"Upload-Length": str(4 * MIB)}).headers["Location"]
        headers = BYTES | {"Upload-Offset": "0"}
        assert api.patch(location, content=b"x" * 4 * MIB, headers=headers).status_code == 507
        assert api.head(location, headers=TUS).headers["Upload-Offset"] == "0"
        assert files_of(Path(settings.store)) == {}
        prlimit(pid, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
        assert upload(api, b"x" * 4 * MIB).status_code == 200
        assert api.patch(location, content=b"x" * 4 * MIB, headers=headers).status_code == 204
        server.stop()
    assert audit_of(settings).uploads == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounting.returncode:
        pytest.skip("this user may not mount")
    try:
        yield disk
    finally:
        subprocess.run(["/bin/umount", disk], check=True)


def test_a_full_disk_of_the_store(small_disk: Path, tmp_path: Path) -> None:
    settings = places(tmp_path, store=str(small_disk / "store"))
    server = Server(settings, tmp_path / "log")
    with server, httpx.Client(base_url=server.url, timeout=60, verify=False) as api:
        assert upload(api, b"a" * 3 * MIB, version="1").status_code == 200
        for data in (b"b" * 6 * MIB, b"c" * 20 * MIB):
            answer = upload(api, data, version="2")
            assert (answer.status_code, answer.json()["type"]) == (507, "urn:hxmlops:problem:storage-full")
        assert list(files_of(Path(settings.store)).values()) == [3 * MIB]
        with ThreadPoolExecutor() as pool:  # together they are too many
            answers = list(pool.map(lambda number: upload(api, bytes([number]) * 3 * MIB, f"3.{number}"), range(4)))
        assert {answer.status_code for answer in answers} <= {200, 507}
        assert sum(answer.status_code == 200 for answer in answers) <= 1
        kept = api.get("/api/v1/model/1", params={"version": "1"})  # without it the latest, if one found room
        assert kept.content == b"a" * 3 * MIB
        server.stop()
    assert len(audit_of(settings).live) == 1 + sum(answer.status_code == 200 for answer in answers)


def test_a_full_disk_of_the_database(small_disk: Path, tmp_path: Path) -> None:
    """Nothing is registered, nor handed over without a line in the audit; when there is room again all goes on."""
    settings = places(tmp_path, database=str(small_disk / "records.sqlite"))
    server = Server(settings, tmp_path / "log")
    with server, httpx.Client(base_url=server.url, timeout=60, verify=False) as api:
        assert upload(api, version="1").status_code == 200
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        statuses = []
        for number in range(40):
            large = {"name": "churn", "version": f"2.{number}", "parameters": '{"a": "%s"}' % ("x" * 100_000)}
            answer = api.post("/api/v1/model", data=large, files={"file": b"%d" % number})
            statuses.append(answer.status_code)
        assert set(statuses) <= {200, 507}
        assert statuses[-1] == 507
        assert api.get("/live").status_code == 200
        filler.unlink()
        client = Client(server.url, "room")
        assert client.ask("GET", "/api/v1/model/1?version=1").content == b"bytes"
        assert upload(api, version="3").status_code == 200
        client.close()
        server.stop()
    assert len(audit_of(settings).live) == 2 + statuses.count(200)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_while_writing(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    blocks = itertools.count()
    append = FileWriter._append

    def fail(self: FileWriter, block: bytes) -> None:
        if next(blocks) == 2:
            raise OSError(number, os.strerror(number))
        append(self, block)

    settings = places(tmp_path)
    with start(**given_of(settings)) as api:
        monkeypatch.setattr(FileWriter, "_append", fail)
        assert upload(api, b"x" * 4 * MIB).status_code == 507
        assert_nothing_is_there(api, settings)
