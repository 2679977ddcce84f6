"""A server as users run it: memory, signals, settings."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2 as httpx
import pytest
from faults import files_of, until

from hxmlops_sharing.__main__ import main
from hxmlops_sharing.serve import bind
from hxmlops_sharing.settings import SettingsError, read_settings

type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]
type ProcessApi = tuple[subprocess.Popen[bytes], httpx.Client, Path]

MIB = 1 << 20
REQUIRED = {"kind": "model", "database": Path("d"), "store": Path("s"), "tokens": Path("t")}


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """Peak resident memory since `clear_peak`."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def clear_peak(process: subprocess.Popen[bytes]) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def test_memory_stays_flat_for_300_mib_in_and_out(process_api: ProcessApi, tmp_path: Path) -> None:
    process, api, _ = process_api
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(300 * MIB)
    api.get("/health")
    clear_peak(process)
    idle = peak_mib(process)
    with path.open("rb") as file:
        record = api.post("/api/v1/model", data={"name": "large", "version": "1"}, files={"file": file}).json()
    assert record["size"] == 300 * MIB
    with api.stream("GET", f"/api/v1/artifacts/{record['sha256']}") as answer:
        assert sum(map(len, answer.iter_bytes())) == 300 * MIB
    assert peak_mib(process) - idle < 60


def test_sigterm_lets_an_upload_end_and_exits_0(start_process: StartProcess, tmp_path: Path) -> None:
    with start_process() as (process, api):
        with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as connection:
            connection.sendall(
                b"POST /api/v1/model?name=churn&version=1 HTTP/1.1\r\nHost: a\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_900_000
            )
            until(lambda: files_of(tmp_path / "store"))
            process.terminate()
            time.sleep(0.2)
            connection.sendall(b"x" * 100_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert process.wait(10) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events[0].startswith("authentication_is_off")
    assert events[1:] == ["serving", "request"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"tokens": None},
            "HXMLOPS_SHARING_TOKENS is not set: name a tokens file, made by `python -m hxmlops_sharing token create`",
        ),
        (
            {"auth": "none", "host": "0.0.0.0"},  # noqa: S104 (refused)
            "HXMLOPS_SHARING_AUTH=none on 0.0.0.0 would let everyone who reaches it read and write: use tokens, "
            "a loopback address, or set HXMLOPS_SHARING_AUTH_NONE_BEYOND_LOOPBACK=true",
        ),
        ({"kind": "models"}, "HXMLOPS_SHARING_KIND: input should be 'model' or 'dataset'"),
        ({"port": 70000}, "HXMLOPS_SHARING_PORT: input should be less than or equal to 65535"),
    ],
)
def test_wrong_settings_are_said_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        read_settings(**REQUIRED | given)


def test_authentication_may_be_off_on_loopback_or_when_told_twice() -> None:
    for given in ({"host": "::1"}, {"host": "localhost"}, {"host": "0.0.0.0", "auth_none_beyond_loopback": True}):  # noqa: S104
        assert read_settings(**REQUIRED | {"auth": "none", "tokens": None} | given).tokens is None


def test_unknown_settings_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HXMLOPS_SHARING_PROT", "8080")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == (
        "hxmlops_sharing: HXMLOPS_SHARING_PROT is not a setting: did you mean HXMLOPS_SHARING_PORT?\n"
    )


def test_a_taken_port_is_said_in_one_line() -> None:
    with bind(read_settings(**REQUIRED | {"port": 0})) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"^cannot listen on 127.0.0.1 port {port} \(Address already in use\): "
        ):
            bind(read_settings(**REQUIRED | {"port": port}))


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    help_ = capsys.readouterr().out
    for name in ("KIND", "DATABASE", "STORE", "HOST", "PORT", "AUTH", "TOKENS", "AUTH_NONE_BEYOND_LOOPBACK"):
        assert f"  HXMLOPS_SHARING_{name}\n" in help_
