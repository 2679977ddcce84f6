"""The client: what stages do with the two APIs, and what they are told when it fails."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_sharing.client import SharingClient, SharingError
from hxmlops_sharing.folder_store import IncomingFile
from hxmlops_sharing.tokens import create_token, revoke_tokens

type Start = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tar"
    path.write_bytes(b"model" * 500_000)
    return path


def upload(client: SharingClient, model: Path, **changed: Any) -> dict[str, Any]:
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
    return client.upload_model(model, **metadata | changed)


def test_models(models: httpx.Client, model: Path, tmp_path: Path) -> None:
    with SharingClient(str(models.base_url), None) as client:
        assert client.catalog("model") == []
        record = upload(client, model)
        assert record["sha256"] == sha256_bytes(model.read_bytes())
        assert record["characteristics"] == {"statement": {"é": None}}
        assert upload(client, model) == record
        assert client.catalog("model", tag="churn", name="churn", version="1.0.1") == [record]
        assert client.catalog("model", tag="other") == []
        client.download_artifact(record["sha256"], tmp_path / "new" / "got.tar")
        assert (tmp_path / "new" / "got.tar").read_bytes() == model.read_bytes()
        changed = client.set_characteristics(record["modelIdentifier"], {"acceptance": {}})
        assert changed["characteristics"] == {"statement": {"é": None}, "acceptance": {}}
        upload(client, model, version="1.0.2", status="development")
        assert [each["version"] for each in client.catalog("model")] == ["1.0.1", "1.0.2"]


def test_datasets(datasets: httpx.Client, tmp_path: Path) -> None:
    dataset, data_model = tmp_path / "d.age", tmp_path / "m.json"
    dataset.write_bytes(b"d" * 3_000_000)
    data_model.write_bytes(b"{}")
    with SharingClient(f"{datasets.base_url}/api/v1/", None) as client:
        assert client.catalog("dataset") == []
        record = client.upload_dataset(
            dataset, data_model, name="churn", version="1", data_type="production", tag="churn", parameters={"a": 1}
        )
        pair = {"dataset": sha256_bytes(dataset.read_bytes()), "dataModel": sha256_bytes(b"{}")}
        assert record["sha256"] == digest_of(pair)
        assert client.catalog("dataset", tag="churn") == [record]
        client.download_dataset(record, tmp_path / "got")
        assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == {
            "dataset": dataset.read_bytes(),
            "dataModel": b"{}",
        }


def test_wrong_bytes_are_refused_and_leave_nothing(models: httpx.Client, model: Path, tmp_path: Path) -> None:
    with SharingClient(str(models.base_url), None) as client:
        record = upload(client, model)
        (path,) = (path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file())
        path.write_bytes(b"MODEL" * 500_000)
        with pytest.raises(SharingError, match=r"answered other bytes than sha256:\w+: use none of them"):
            client.download_artifact(record["sha256"], tmp_path / "got" / "x")
        assert list((tmp_path / "got").iterdir()) == []


def test_a_wrong_dataset_is_refused_and_leaves_nothing(datasets: httpx.Client, model: Path, tmp_path: Path) -> None:
    with SharingClient(str(datasets.base_url), None) as client:
        record = client.upload_dataset(
            model, model, name="churn", version="1", data_type="mixed", tag="churn", parameters={}
        )
        for changed in ("datasetSha256", "dataModelSha256"):
            with pytest.raises(SharingError, match="answered another dataset than sha256:"):
                client.download_dataset(record | {changed: "sha256:0"}, tmp_path / "got")
        (path,) = (path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file())
        path.write_bytes(b"MODEL" * 500_000)
        with pytest.raises(SharingError, match="answered another dataset than sha256:"):
            client.download_dataset(record, tmp_path / "got")
        assert list((tmp_path / "got").iterdir()) == []


def test_what_the_server_refuses(start: Start, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, mine = tmp_path / "tokens.json", tmp_path / "mine.token"
    create_token(tokens, mine, client="me", scopes=["read", "write"], artifacts=["churn"], days=1)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with start(auth="tokens", tokens=tokens) as api, SharingClient(str(api.base_url), mine) as client:
        url = str(api.base_url).rstrip("/")
        upload(client, model)
        with refused(409, f"POST {url}/api/v1/model: 409: churn 1.0.1 is registered with other metadata; "):
            upload(client, model, tag="other")
        with refused(404, f"GET {url}/api/v1/artifacts/sha256:0: 404: no model has the digest sha256:0"):
            client.download_artifact("sha256:" + "0" * 64, tmp_path / "x")
        reason = "the token of me is not for an artifact named other"
        with refused(403, f"403: {reason}: ask the owner of {url} for a token that allows it"):
            upload(client, model, name="other")
        with monkeypatch.context() as patched, refused(507, "507: no room left for this upload"):
            patched.setattr(IncomingFile, "_append", no_space)
            upload(client, model, version="2")
        revoke_tokens(tokens, client="me")
        advice = f"ask the owner of {url} for a new one and put it in {mine}"
        with refused(401, f"401: token expired or unknown: {advice} (the token is unknown)"):
            client.catalog("model")


def test_what_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxmlops_sharing.client.RETRY_AFTER_S", (0, 0))
    with answering() as url:
        pass
    with SharingClient(url, None) as client, refused(None, f"{url} cannot be reached ("):
        client.catalog("model")
    with refused(None, f"no token for http://a: {tmp_path}/none: No such file or directory"):
        SharingClient("http://a", tmp_path / "none")
    for content in (b"", b"secret\nsecret", b"secret\xff"):
        (tmp_path / "odd").write_bytes(content)
        with refused(None, f"no token for http://a: {tmp_path}/odd holds none: ask the owner of http://a"):
            SharingClient("http://a", tmp_path / "odd")
    with refused(None, "check the url and its CA file"):
        SharingClient("https://a", None, ca=tmp_path / "none.pem")


def test_a_cut_connection_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxmlops_sharing.client.RETRY_AFTER_S", (0, 0))
    bytes_ = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
    with answering(b"", bytes_[:-3], bytes_) as url, SharingClient(url, None) as client:
        client.download_artifact(sha256_bytes(b"0123456789"), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"0123456789"
    with answering(b"", b"", b"", b"") as url, SharingClient(url, None) as client, refused(None, "cannot be reached"):
        client.download_artifact(sha256_bytes(b"0123456789"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'404 Not Found\r\n\r\n{"detail": "Not Found"}', "404: Not Found"),
        (b"502 Bad Gateway\r\n\r\n<html>", "502: no reason given: is this a sharing API?"),
        (b"200 OK\r\n\r\n<html>", "answered no JSON: is this a sharing API?"),
    ],
)
def test_what_is_no_sharing_api(answer: bytes, message: str) -> None:
    with (
        answering(b"HTTP/1.1 " + answer) as url,
        SharingClient(url, None) as client,
        pytest.raises(SharingError) as error,
    ):
        client.catalog("model")
    assert message in str(error.value)


def test_importing_the_client_imports_no_server() -> None:
    code = "import hxmlops_sharing.client, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"fastapi", "starlette", "pydantic", "sqlalchemy", "structlog", "uvicorn", "cryptography", "rich"}
    assert heavy & set(run.stdout.split()) == set()


@contextmanager
def refused(status: int | None, message: str) -> Iterator[None]:
    """Expects a SharingError of one line with this in it."""
    with pytest.raises(SharingError) as error:
        yield
    assert error.value.status == status
    assert message in str(error.value).replace("0" * 64, "0")
    assert "\n" not in str(error.value)


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """The url of a server that gives each connection the next of these answers and cuts it off."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(100_000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
