"""A server around its application: TLS, a path prefix, metrics on their own port, its end."""

import asyncio
import ipaddress
import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hxmlops_sharing import tls
from hxmlops_sharing.settings import SettingsError, read_settings

type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]

NOW = datetime.now(UTC)
UPLOAD = (
    b"POST /api/v1/model?name=churn&version=%d HTTP/1.1\r\nHost: a\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 2000000\r\n\r\n"
)


class Authority:
    """A certificate authority that signs for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, NOW - timedelta(days=1), NOW + timedelta(days=1))
        self.file = folder / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def make(self, name: str, *, since: datetime | None = None, until: datetime | None = None) -> dict[str, Path]:
        """Settings with a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, since or NOW - timedelta(days=1), until or NOW + timedelta(days=1))
        paths = {"certificate": self.folder / f"{name}.pem", "private_key": self.folder / f"{name}.key"}
        paths["certificate"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths["private_key"].write_bytes(pem(key))
        return paths

    def _sign(self, name: str, key: Any, since: datetime, until: datetime) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip


def pem(key: Any, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoded: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    return encoded


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, client: dict[str, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if client:
        context.load_cert_chain(client["certificate"], client["private_key"])
    return context


def test_tls_with_certificates_of_clients(start_process: StartProcess, authority: Authority, tmp_path: Path) -> None:
    with start_process(**authority.make("server"), client_ca=authority.file) as (_, plain):
        url = str(plain.base_url).replace("http:", "https:")
        with httpx.Client(base_url=url, verify=trusting(authority, authority.make("client"))) as known:
            assert known.get("/live").json() == {"status": "UP"}
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other")
        for context in (trusting(authority), trusting(authority, stranger.make("client"))):
            with httpx.Client(base_url=url, verify=context) as unknown, pytest.raises(httpx.TransportError):
                unknown.get("/live")
        with pytest.raises(httpx.TransportError):
            plain.get("/live")


def test_certificates_that_do_not_fit_are_said_in_one_line(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.make("good"), authority.make("other")
    old = authority.make("old", since=NOW - timedelta(days=9), until=NOW - timedelta(days=8))
    young = authority.make("young", since=NOW + timedelta(hours=1))
    locked = tmp_path / "locked.key"
    locked.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    missing = tmp_path / "missing.pem"
    cases: list[tuple[dict[str, Path], str]] = [
        (
            good | {"private_key": other["private_key"]},
            "PRIVATE_KEY .* is not the key of .*good.pem: name the two that",
        ),
        (old, "CERTIFICATE .*old.pem expired at .*Z: renew it"),
        (young, "CERTIFICATE .*young.pem is valid from .*Z: wait until then"),
        (good | {"private_key": locked}, "PRIVATE_KEY .* has a passphrase: name a file without one"),
        (good | {"private_key": nothing}, "PRIVATE_KEY .* is no PEM private key"),
        (good | {"certificate": nothing}, "CERTIFICATE .* has no PEM certificate: name a file that has"),
        (good | {"certificate": missing}, "CERTIFICATE .*: No such file or directory: name a file that this user may"),
        (good | {"client_ca": nothing}, "CLIENT_CA .* has no PEM certificate"),
        (good | {"client_ca": old["certificate"]}, "CLIENT_CA .*old.pem expired at"),
    ]
    for given, message in cases:
        with pytest.raises(SettingsError, match=f"^HXMLOPS_SHARING_{message}") as error:
            tls.tls_of(read_settings(kind="model", database="d", store="s", auth="none", **given))
        assert "\n" not in str(error.value)
    assert tls.tls_of(read_settings(kind="model", database="d", store="s", auth="none")) is None
    context = tls.tls_of(read_settings(kind="model", database="d", store="s", auth="none", **good))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_renewed_certificate_is_used_without_a_restart(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "RENEW_S", 0.05)
    given = authority.make("server")
    settings = read_settings(kind="model", database="d", store="s", auth="none", **given)
    context = tls.tls_of(settings)
    assert context is not None

    async def serial(port: int) -> int:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(shown).serial_number

    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        renewing = asyncio.create_task(tls.renew(context, settings))
        async with server:
            port = server.sockets[0].getsockname()[1]
            first = await serial(port)
            given["certificate"].write_text("half of a file")
            await asyncio.sleep(0.2)
            assert await serial(port) == first
            authority.make("server")
            await asyncio.sleep(0.2)
            assert await serial(port) != first
        renewing.cancel()

    asyncio.run(run())


def test_behind_a_prefix_that_the_proxy_takes_off_or_not(start_process: StartProcess) -> None:
    with start_process(path_prefix="/api") as (_, api):
        for version, path in enumerate(("/api/api/v1/model", "/api/v1/model")):
            record = api.post(path, data={"name": "churn", "version": version}, files={"file": b"x"}).json()
            assert record["version"] == str(version)
        for path in ("/api/live", "/live", "/api/api/v1/health/", "/api/v1/health", "/api/api/v1/model_catalog/"):
            assert api.get(path).status_code == 200, path
        assert api.get("/api/api/v1/openapi.json").json()["servers"] == [{"url": "/api"}]
        for path in ("/apix/v1/health", "/other/api/v1/health", "/api/api/api/v1/health"):
            assert api.get(path).status_code == 404


def test_metrics_are_on_a_port_of_their_own(start_process: StartProcess, tmp_path: Path) -> None:
    with start_process(metrics_port=0) as (_, api):
        first = json.loads((tmp_path / "log").read_text().splitlines()[1])
        api.post("/api/v1/model", data={"name": "churn", "version": "1"}, files={"file": b"x" * 1000})
        api.get("/api/v1/model/by_id/1")
        api.get("/api/v1/model/by_id/4")
        api.get("/api/v1/nothing/here")
        with httpx.Client(base_url=f"http://127.0.0.1:{first['metrics_port']}") as metrics:
            answer = metrics.get("/metrics")
            assert metrics.get("/").status_code == metrics.get("/metrics/x").status_code == 404
            assert metrics.head("/metrics").content == b""
            assert metrics.post("/metrics").status_code == 501
        assert api.get("/metrics").status_code == 404
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    by_route = {
        re.sub(r'route="[^"]*(/model/by_id/\{identifier\}|/model)"', r'route="\1"', name): float(value)
        for name, value in found.items()
    }
    assert by_route['hxmlops_sharing_requests_total{method="GET",route="/model/by_id/{identifier}",status="200"}'] == 1
    assert by_route['hxmlops_sharing_requests_total{method="GET",route="/model/by_id/{identifier}",status="404"}'] == 1
    assert by_route['hxmlops_sharing_requests_total{method="GET",route="(none)",status="404"}'] == 1
    assert by_route['hxmlops_sharing_requests_total{method="POST",route="/model",status="200"}'] == 1
    assert 1000 <= float(found["hxmlops_sharing_received_bytes_total"]) < 2000
    assert float(found["hxmlops_sharing_sent_bytes_total"]) > 1000
    assert float(found['hxmlops_sharing_store_seconds_count{operation="finish"}']) == 1
    assert float(found['hxmlops_sharing_versions{kind="model"}']) == 1
    assert float(found["hxmlops_sharing_database_up"]) == float(found["hxmlops_sharing_store_up"]) == 1
    assert float(found["hxmlops_sharing_audit_lines"]) >= 1
    assert float(found['hxmlops_sharing_build_info{kind="model",version="0.1.0"}']) == 1
    assert not any("nothing" in name or "_created" in name for name in found)


def test_a_taken_metrics_port_is_said_in_one_line(start_process: StartProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1 port {port} for metrics"),
            start_process(metrics_port=port),
        ):
            pass


def begin_upload(api: httpx.Client, version: int, store: Path) -> socket.socket:
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    connection.sendall(UPLOAD % version + b"x" * 1_900_000)
    while not any(path.is_file() for path in store.rglob("*")):
        time.sleep(0.01)
    return connection


def cut_off(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_second_signal_ends_the_server_at_once(start_process: StartProcess, tmp_path: Path) -> None:
    with start_process() as (process, api), begin_upload(api, 1, tmp_path / "store") as connection:
        process.terminate()
        time.sleep(0.5)
        assert process.poll() is None
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - started < 10  # without it, 20 s
        assert cut_off(connection)
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["level"] for line in log[1:]] == ["info"] * (len(log) - 1), log


def test_uploads_that_go_on_too_long_are_cut(
    start_process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import hxmlops_sharing.serve as serve\nserve.GRACE_S = 1\n")
    import hxmlops_sharing

    package = Path(hxmlops_sharing.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{package}:{package.parent / 'evidence'}")
    with start_process() as (process, api), begin_upload(api, 1, tmp_path / "store") as connection:
        process.terminate()
        assert process.wait(10) == 0
        assert cut_off(connection)
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {line["level"] for line in log[1:]} <= {"info", "error"}, log
    assert not any("Traceback" in json.dumps(line) for line in log)
