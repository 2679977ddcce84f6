"""Both clients: what they do with the two APIs, over good lines and bad ones, and what they say when it fails."""

import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from certificates import make_certificates
from wires import CLIENTS, CuttingProxy, Hostile, answer, parts, refused

from hxmlops_evidence.digests import digest_of, sha256_bytes, sha256_file
from hxmlops_evidence.keys import load_signing_key, make_keys, public_pem
from hxmlops_sharing.calls import patience
from hxmlops_sharing.client import SharingClient, SharingError, WrongBytes, progress_bar
from hxmlops_sharing.folder_store import FileWriter
from hxmlops_sharing.tokens import create_token, revoke_tokens

type Start = Callable[..., AbstractContextManager[httpx.Client]]
type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]
type ClientClass = Callable[..., Any]

MIB = 1 << 20
both = pytest.mark.parametrize("client_class", CLIENTS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tar"
    path.write_bytes(b"model" * 500_000)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.tar"
    path.write_bytes(random.Random(7).randbytes(24 * MIB))  # noqa: S311
    return path


@pytest.fixture
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "CALL_PAUSES_S", (0, 0))
    monkeypatch.setattr(patience, "TRANSFER_PAUSES_S", (0.01, 0.05, 0.2, 1, 2, 4))


def upload(client: Any, model: Path, **changed: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": "churn",
        "version": "1.0.1",
        "status": "staging",
        "library": "onnx",
        "library_version": "1",
        "domain": "software-vendor",
        "tag": "churn",
        "parameters": {"a": 1},
        "characteristics": {"statement": {"é": None}},
    }
    record: dict[str, Any] = client.upload_model(model, **metadata | changed)
    return record


# What it can do


@both
def test_models(client_class: ClientClass, models: httpx.Client, model: Path, tmp_path: Path) -> None:
    with client_class(str(models.base_url), None) as client:
        assert client.catalog("model") == []
        record = upload(client, model)
        assert record["sha256"] == sha256_bytes(model.read_bytes())
        assert record["characteristics"] == {"statement": {"é": None}}
        assert upload(client, model, sha256=record["sha256"]) == record
        assert client.catalog("model", tag="churn", name="churn", version="1.0.1") == [record]
        assert client.catalog("model", tag="other") == []
        got = client.download_artifact(record["sha256"], tmp_path / "new" / "got.tar")
        assert (tmp_path / "new" / "got.tar").read_bytes() == model.read_bytes()
        assert got.size == model.stat().st_size
        assert os.listdir(tmp_path / "new") == ["got.tar"]  # noqa: PTH208
        changed = client.set_characteristics(record["modelIdentifier"], {"acceptance": {}})
        assert changed["characteristics"] == {"statement": {"é": None}, "acceptance": {}}
        upload(client, model, version="1.0.2", status="development")
        assert [each["version"] for each in client.catalog("model")] == ["1.0.1", "1.0.2"]


@both
def test_datasets(client_class: ClientClass, datasets: httpx.Client, tmp_path: Path) -> None:
    dataset, data_model = tmp_path / "d.age", tmp_path / "m.json"
    dataset.write_bytes(b"d" * 3_000_000)
    data_model.write_bytes(b"{}")
    metadata: dict[str, Any] = {"name": "churn", "data_type": "production", "tag": "churn", "parameters": {"a": 1}}
    pair = {"dataset": sha256_bytes(dataset.read_bytes()), "dataModel": sha256_bytes(b"{}")}
    with client_class(f"{datasets.base_url}/api/v1/", None) as client:
        assert client.catalog("dataset") == []
        record = client.upload_dataset(
            dataset,
            data_model,
            version="1",
            dataset_sha256=pair["dataset"],
            data_model_sha256=pair["dataModel"],
            **metadata,
        )
        assert record["sha256"] == digest_of(pair)
        assert client.catalog("dataset", tag="churn") == [record]
        client.download_dataset(record, tmp_path / "got")
        assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == {
            "dataset": dataset.read_bytes(),
            "dataModel": b"{}",
        }
    with client_class(str(datasets.base_url), None, resumable_from=1) as client:
        resumed = client.upload_dataset(dataset, data_model, version="2", **metadata)
        assert resumed["sha256"] == record["sha256"]
        assert client.upload_dataset(dataset, data_model, version="2", **metadata) == resumed


@both
def test_records_versions_and_aliases(client_class: ClientClass, models: httpx.Client, model: Path) -> None:
    with client_class(str(models.base_url), None) as client:
        records = [upload(client, model, version=version) for version in ("1.0.1", "1.0.10", "1.0.9")]
        first, newest, second = (record["modelIdentifier"] for record in records)
        assert client.record("model", first) == records[1]
        assert client.record("model", first, "1.0.1") == records[0]
        assert [each["version"] for each in client.versions("model", first)] == ["1.0.10", "1.0.9", "1.0.1"]
        assert client.aliases("churn") == []
        set_now = client.set_alias("churn", "champion", first, revision=0)
        assert (set_now["identifier"], set_now["revision"]) == (first, 1)
        assert client.record("model", newest, "@champion") == records[0]
        assert client.set_alias("churn", "champion", second, revision=1)["revision"] == 2
        with refused(412, "412: champion of churn has revision 2, not 1"):
            client.set_alias("churn", "champion", newest, revision=1)
        assert [each["identifier"] for each in client.aliases("churn", "champion")] == [second, first]
        assert client.set_alias("churn", "champion", None)["identifier"] is None
        assert client.aliases("churn") == []


@both
@pytest.mark.usefixtures("in_haste")
def test_an_alias_that_was_set_although_the_answer_was_lost(
    client_class: ClientClass, models: httpx.Client, model: Path
) -> None:
    with client_class(str(models.base_url), None) as client:
        identifier = upload(client, model)["modelIdentifier"]
        client.set_alias("churn", "champion", identifier, revision=0)
        assert client.set_alias("churn", "champion", identifier, revision=0)["revision"] == 1
        with refused(412, "412"):
            client.set_alias("churn", "champion", identifier, revision=1 + 1)


@both
def test_a_catalogue_of_many_pages(
    client_class: ClientClass, models: httpx.Client, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hxmlops_sharing.calls.api.PAGE", 2)
    with client_class(str(models.base_url), None) as client:
        records = [upload(client, model, version=str(version)) for version in range(5)]
        assert client.catalog("model") == records


@both
def test_progress_is_told(client_class: ClientClass, models: httpx.Client, large: Path, tmp_path: Path) -> None:
    size = large.stat().st_size
    for resumable_from in (1 << 40, 1):
        told: list[tuple[int, int | None]] = []
        with client_class(str(models.base_url), None, resumable_from=resumable_from) as client:
            record = upload(client, large, progress=lambda *at, told=told: told.append(at))
        assert told == sorted(told)
        done, total = told[-1]
        assert done == total
        assert done >= size
        assert len(told) >= 24
    told = []
    with client_class(str(models.base_url), None) as client:
        client.download_artifact(record["sha256"], tmp_path / "got", progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1] == (size, size)


@both
def test_receipts(client_class: ClientClass, start: Start, model: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    make_keys(tmp_path / "other")
    for folder in ("keys", "other"):
        public = load_signing_key(tmp_path / folder / "signing.pem").public_key()
        (tmp_path / f"{folder}.pem").write_text(public_pem(public))
    receipt, key, wrong = tmp_path / "receipts" / "model.json", tmp_path / "keys.pem", tmp_path / "other.pem"
    with (
        start(signing_key=tmp_path / "keys" / "signing.pem", issuer="vendor") as api,
        client_class(str(api.base_url), None) as client,
    ):
        sha256 = upload(client, model)["sha256"]
        got = client.download_artifact(sha256, tmp_path / "got", receipt=receipt, receipt_key=key)
        assert receipt.stat().st_mode & 0o777 == 0o600
        assert client.receipt(got.receipts[0], key=key)["payload"] == client.receipt(got.receipts[0])["payload"]
        assert receipt.read_text().count("\n") == 1
        with refused(None, "is no proof"):
            client.receipt(got.receipts[0], key=wrong)
    receipt.unlink()
    with start() as api, client_class(str(api.base_url), None) as client:
        got = client.download_artifact(sha256, tmp_path / "again", receipt=receipt)
        assert not receipt.exists()
        with refused(None, "gives no receipt of sha256:"):
            client.download_artifact(sha256, tmp_path / "again", receipt=receipt, receipt_key=key)
        with refused(None, "it signs none, or not this one"):
            client.receipt("999999")


# Bad lines


@both
@pytest.mark.usefixtures("in_haste")
def test_an_upload_over_a_line_that_is_cut(client_class: ClientClass, models: httpx.Client, large: Path) -> None:
    """24 MiB over a line that breaks after 5 MiB: no byte that was received is sent again, but for the last buffers."""
    proxy = CuttingProxy(str(models.base_url), up=5 * MIB)
    with proxy.serving() as url, client_class(url, None, resumable_from=1) as client:
        assert upload(client, large)["sha256"] == sha256_file(large)
    assert proxy.connections >= 5
    assert proxy.carried["up"] - large.stat().st_size < MIB


@both
@pytest.mark.usefixtures("in_haste")
def test_a_download_over_a_line_that_is_cut(
    client_class: ClientClass, models: httpx.Client, large: Path, tmp_path: Path
) -> None:
    with client_class(str(models.base_url), None) as client:
        sha256 = upload(client, large)["sha256"]
    proxy = CuttingProxy(str(models.base_url), down=5 * MIB)
    with proxy.serving() as url, client_class(url, None) as client:
        client.download_artifact(sha256, tmp_path / "got")
    assert sha256_file(tmp_path / "got") == sha256
    assert proxy.connections == 5
    assert proxy.carried["down"] - large.stat().st_size < MIB


@both
@pytest.mark.usefixtures("in_haste")
def test_a_dataset_over_a_line_that_is_cut(
    client_class: ClientClass, datasets: httpx.Client, large: Path, model: Path, tmp_path: Path
) -> None:
    proxy = CuttingProxy(str(datasets.base_url), up=7 * MIB, down=7 * MIB)
    with proxy.serving() as url, client_class(url, None, resumable_from=1) as client:
        record = client.upload_dataset(large, model, name="a", version="1", data_type="mixed", tag="", parameters={})
        client.download_dataset(record, tmp_path / "got")
    assert sha256_file(tmp_path / "got" / "dataset") == sha256_file(large)
    assert sha256_file(tmp_path / "got" / "dataModel") == sha256_file(model)
    size = large.stat().st_size + model.stat().st_size
    assert proxy.carried["up"] - size < MIB
    assert proxy.carried["down"] - size < MIB


class Stop(Exception):
    pass


@both
@pytest.mark.usefixtures("in_haste")
def test_an_upload_goes_on_in_another_process(
    client_class: ClientClass, models: httpx.Client, large: Path, tmp_path: Path
) -> None:
    def stop_at_half(done: int, _: int | None) -> None:
        if done > 12 * MIB:
            raise Stop

    noted = tmp_path / "folder" / "noted"
    proxy = CuttingProxy(str(models.base_url))
    with proxy.serving() as url:
        with client_class(url, None, resumable_from=1) as client, pytest.raises(Stop):
            upload(client, large, resume=noted, progress=stop_at_half)
        assert noted.stat().st_mode & 0o777 == 0o600
        with client_class(url, None, resumable_from=1) as client:
            assert upload(client, large, resume=noted)["sha256"] == sha256_file(large)
    assert not noted.exists()
    assert proxy.carried["up"] - large.stat().st_size < 5 * MIB  # what was in the buffers when we stopped


@both
def test_another_file_is_not_the_rest_of_the_first(
    client_class: ClientClass, models: httpx.Client, large: Path, tmp_path: Path
) -> None:
    def stop_at_half(done: int, _: int | None) -> None:
        if done > 12 * MIB:
            raise Stop

    with client_class(str(models.base_url), None, resumable_from=1) as client:
        with pytest.raises(Stop):
            upload(client, large, resume=tmp_path / "noted", progress=stop_at_half)
        large.write_bytes(large.read_bytes()[::-1])
        assert upload(client, large, resume=tmp_path / "noted")["sha256"] == sha256_file(large)


@pytest.mark.slow
@both
@pytest.mark.usefixtures("in_haste")
def test_a_server_that_is_killed_and_comes_back(
    client_class: ClientClass, start_process: StartProcess, large: Path, tmp_path: Path
) -> None:
    """In the midst of an upload, and in the midst of the download."""
    with ExitStack() as stack:
        process, api = stack.enter_context(start_process())
        proxy = CuttingProxy(str(api.base_url))
        url = stack.enter_context(proxy.serving())

        def restart(done: int, _: int | None) -> None:
            nonlocal process
            if done > 8 * MIB and restarts:
                restarts.pop()
                process.send_signal(signal.SIGKILL)
                process.wait()
                process, api = stack.enter_context(start_process())
                proxy.reach(str(api.base_url))

        with client_class(url, None, resumable_from=1) as client:
            restarts = ["once"]
            record = upload(client, large, progress=restart)
            assert (record["sha256"], restarts) == (sha256_file(large), [])
            restarts = ["once"]
            client.download_artifact(record["sha256"], tmp_path / "got", progress=restart)
            assert (sha256_file(tmp_path / "got"), restarts) == (record["sha256"], [])


@both
@pytest.mark.usefixtures("in_haste")
def test_a_registration_whose_answer_is_lost(
    client_class: ClientClass, models: httpx.Client, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has registered the file; the client asks again, with a file that is no more."""
    from hxmlops_sharing.calls.link import Link

    call = Link.call
    lost: list[Any] = []

    async def losing(self: Link, method: str, path: str, **request: Any) -> Any:
        if path == "/model" and not lost:
            lost.append((await call(self, method, path, **request)).value)
        return await call(self, method, path, **request)

    monkeypatch.setattr(Link, "call", losing)
    with client_class(str(models.base_url), None, resumable_from=1) as client:
        assert [upload(client, large)] == lost
        assert client.catalog("model") == lost


@both
def test_a_server_that_takes_no_resumable_uploads(client_class: ClientClass, tmp_path: Path) -> None:
    """An original HX-MLOps: no digests, no pages."""
    (tmp_path / "model").write_bytes(b"m" * 1000)
    for no_such_call in ("404 Not Found", "405 Method Not Allowed"):
        server = Hostile(
            answer(b'{"detail": "Not Found"}', no_such_call),
            answer(b'{"modelIdentifier": 1, "name": "churn"}'),
        )
        with server.serving() as url, client_class(url, None, resumable_from=1) as client:
            assert upload(client, tmp_path / "model") == {"modelIdentifier": 1, "name": "churn"}
        assert [request.split()[0] for request in server.requests] == ["OPTIONS", "POST"]


@both
def test_two_downloads_of_the_same_at_once(
    client_class: ClientClass, models: httpx.Client, large: Path, tmp_path: Path
) -> None:
    with client_class(str(models.base_url), None) as client, SharingClient(str(models.base_url), None) as other:
        sha256 = upload(client, large)["sha256"]
        got = tmp_path / "got" / "it"

        def meanwhile(done: int, _: int | None) -> None:
            if done > 12 * MIB and not got.exists():
                other.download_artifact(sha256, got)
                assert sha256_file(got) == sha256

        client.download_artifact(sha256, got, progress=meanwhile)
        assert sha256_file(got) == sha256
        assert os.listdir(got.parent) == ["it"]  # noqa: PTH208


# What goes wrong


@both
def test_wrong_bytes_are_refused_and_leave_nothing(
    client_class: ClientClass, models: httpx.Client, model: Path, tmp_path: Path
) -> None:
    with client_class(str(models.base_url), None) as client:
        record = upload(client, model)
        spoil(tmp_path)
        with refused(None, "answered other bytes than sha256:", WrongBytes):
            client.download_artifact(record["sha256"], tmp_path / "got" / "x")
        assert list((tmp_path / "got").iterdir()) == []


@both
def test_a_wrong_dataset_is_refused_and_leaves_nothing(
    client_class: ClientClass, datasets: httpx.Client, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "data-model").write_bytes(b"{}")
    with client_class(str(datasets.base_url), None) as client:
        record = client.upload_dataset(
            model, tmp_path / "data-model", name="churn", version="1", data_type="mixed", tag="churn", parameters={}
        )
        for changed in ("datasetSha256", "dataModelSha256"):
            with refused(None, "answered another dataset than sha256:", WrongBytes):
                client.download_dataset(record | {changed: "sha256:0"}, tmp_path / "got")
        with refused(None, "names no digests: datasets can be fetched from HX-MLOps alone"):
            client.download_dataset({"datasetIdentifier": 1}, tmp_path / "got")
        spoil(tmp_path)
        with refused(None, "answered another dataset than sha256:", WrongBytes):
            client.download_dataset(record, tmp_path / "got")
        assert list((tmp_path / "got").iterdir()) == []


def spoil(folder: Path) -> None:
    """Change the bytes of everything of some size that a server has in its store."""
    for path in (folder / "store").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.chmod(0o600)
            path.write_bytes(b"MODEL" * 500_000)


@both
def test_what_the_server_refuses(
    client_class: ClientClass, start: Start, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, mine = tmp_path / "tokens.json", tmp_path / "mine.token"
    create_token(tokens, mine, client="me", scopes=["read", "write"], artifacts=["churn"], days=1)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with start(auth="tokens", tokens=tokens) as api, client_class(str(api.base_url), mine) as client:
        url = str(api.base_url).rstrip("/")
        upload(client, model)
        with refused(409, f"POST {url}/api/v1/model: 409: churn 1.0.1 is registered with other metadata; "):
            upload(client, model, tag="other")
        with refused(404, f"GET {url}/api/v1/artifacts/sha256:0: 404: no model has the digest sha256:0"):
            client.download_artifact("sha256:" + "0" * 64, tmp_path / "x")
        reason = "the token of me is not for an artifact named other"
        with refused(403, f"403: {reason}: ask the owner of {url} for a token that allows it"):
            upload(client, model, name="other")
        with refused(400, "POST"):
            upload(client, model, version="3", sha256="sha256:" + "0" * 64)
        with refused(None, "'other' is no digest"):
            upload(client, model, version="3", sha256="other")
        with monkeypatch.context() as patched, refused(507, "507: no room left for this upload"):
            patched.setattr(FileWriter, "_append", no_space)
            upload(client, model, version="2")
        revoke_tokens(tokens, client="me")
        advice = f"ask the owner of {url} for a new one and put it in {mine}"
        with refused(401, f"401: token expired or unknown: {advice} (the token is unknown)"):
            client.catalog("model")
        assert parts(tmp_path) == []


@both
def test_a_resumable_upload_that_is_refused_leaves_nothing(
    client_class: ClientClass, models: httpx.Client, large: Path, model: Path, tmp_path: Path
) -> None:
    with client_class(str(models.base_url), None, resumable_from=1) as client:
        upload(client, model)
        with refused(409, "409: churn 1.0.1 is registered with other bytes"):
            upload(client, large, resume=tmp_path / "noted")
        assert not (tmp_path / "noted").exists()


@both
@pytest.mark.usefixtures("in_haste")
def test_what_cannot_be_reached(client_class: ClientClass, tmp_path: Path) -> None:
    with Hostile(b"").serving() as url:
        pass
    with client_class(url, None) as client, refused(None, f"{url} cannot be reached ("):
        client.catalog("model")
    with client_class(url, None) as client, refused(None, f"{url} cannot be reached ("):
        client.download_artifact("sha256:" + "0" * 64, tmp_path / "got")
    with refused(None, f"no token for http://a: {tmp_path}/none: No such file or directory"):
        client_class("http://a", tmp_path / "none")
    for content in (b"", b"secret\nsecret", b"secret\xff"):
        (tmp_path / "odd").write_bytes(content)
        with refused(None, f"no token for http://a: {tmp_path}/odd holds none: ask the owner of http://a"):
            client_class("http://a", tmp_path / "odd")
    with refused(None, "check the url and its CA file"):
        client_class("https://a", None, ca=tmp_path / "none.pem")
    with (
        Hostile(b"").serving() as url,
        client_class(url, None) as client,
        pytest.raises(FileNotFoundError, match="none"),
    ):
        upload(client, tmp_path / "none")


@both
@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (b'404 Not Found\r\n\r\n{"detail": "Not Found"}', "404: Not Found"),
        (b"500 Error\r\nX-Request-Id: abc\r\n\r\n<html>", "500: no reason given: is this a sharing API? (request id a"),
        (b"200 OK\r\n\r\n<html>", "answered no JSON: is this a sharing API?"),
    ],
)  # fmt: skip
def test_what_is_no_sharing_api(client_class: ClientClass, answered: bytes, message: str) -> None:
    with (
        Hostile(b"HTTP/1.1 " + answered).serving() as url,
        client_class(url, None) as client,
        pytest.raises(SharingError) as error,
    ):
        client.catalog("model")
    assert message in str(error.value)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certificates")


@both
def test_mutual_tls(
    client_class: ClientClass, start_process: StartProcess, certificates: Path, model: Path, tmp_path: Path
) -> None:
    ca, certificate, key = (certificates / name for name in ("ca.pem", "client.pem", "client.key"))
    tls = {"certificate": certificates / "server.pem", "private_key": certificates / "server.key", "client_ca": ca}
    with start_process(**tls) as (_, api):
        url = f"https://127.0.0.1:{api.base_url.port}"
        with client_class(url, None, ca, certificate=certificate, key=key, resumable_from=1) as client:
            record = upload(client, model)
            client.download_artifact(record["sha256"], tmp_path / "got")
        assert sha256_file(tmp_path / "got") == record["sha256"]
        with client_class(url, None, ca) as client, refused(None, "cannot be reached"):
            client.catalog("model")
        with client_class(url, None) as client, refused(None, "CERTIFICATE_VERIFY_FAILED"):
            client.catalog("model")
    for bad in ("client-locked.key", "server.key", "ca.pem", "none.key"):
        with refused(None, "check the url and its CA file"):
            client_class(url, None, ca, certificate=certificate, key=certificates / bad)


@both
def test_https_does_not_lead_to_http(client_class: ClientClass, certificates: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    data = b"the bytes"
    with Hostile(answer(data)).serving() as plain, Hostile(answer(data), context=context).serving() as safe:
        for to, message in ((plain, "redirects to http://127.0.0.1, which is not followed"), (safe, "")):
            api = Hostile(answer(b"", "307 Temporary Redirect", Location=f"{to}/x"), context=context)
            with api.serving() as url, client_class(url, None, certificates / "ca.pem") as client:
                if message:
                    with refused(None, message):
                        client.download_artifact(sha256_bytes(data), tmp_path / "got")
                else:
                    client.download_artifact(sha256_bytes(data), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data


# The module


def test_importing_the_client_imports_no_server() -> None:
    code = "import hxmlops_sharing.client, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "fastapi",
        "starlette",
        "pydantic",
        "sqlalchemy",
        "structlog",
        "uvicorn",
        "cryptography",
        "rich",
        "asyncio",
    }
    assert heavy & set(run.stdout.split()) == set()
    ours = {name for name in run.stdout.split() if name.startswith("hxmlops_sharing.")}
    assert {name for name in ours if not name.startswith("hxmlops_sharing.calls")} == {"hxmlops_sharing.client"}


def test_importing_the_client_takes_no_time() -> None:
    """Beyond what httpx takes; in processor time, for other tests run too."""
    code = (
        "import time, httpx2; began = time.process_time(); import hxmlops_sharing.client; "
        "print(time.process_time() - began)"
    )
    runs = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5))
    assert min(float(run.stdout) for run in runs) < 0.1


def test_a_progress_bar_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("model.tar") as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("after_s", "shown"), [("0", True), ("60", False)])
def test_a_progress_bar_on_a_terminal(after_s: str, shown: bool) -> None:
    code = (
        "import hxmlops_sharing.calls.progress as p, time\n"
        f"p.AFTER_S = {after_s}\n"
        "with p.progress_bar('[b]model.tar') as progress:\n"
        "    for done in range(10): progress(done << 20, 10 << 20); time.sleep(0.02)\n"
    )
    near, far = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=far, env={**os.environ, "TERM": "xterm"}, check=True)
    os.close(far)
    seen = b""
    while True:
        try:
            data = os.read(near, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(near)
    assert (b"[b]model.tar" in seen) is shown
    assert bool(seen) is shown
