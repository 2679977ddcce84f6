"""Bearer tokens: scopes, artifacts, expiry, revocation; and what nobody gets to see."""

import json
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import httpx2 as httpx
import pytest
from structlog.testing import capture_logs

from hxmlops_sharing.tokens import create_token, revoke_tokens, token_digest


class Start(Protocol):
    def __call__(self, **given: object) -> AbstractContextManager[httpx.Client]: ...


class Holder(Protocol):
    def __call__(self, *scopes: str, artifacts: tuple[str, ...] = ("*",)) -> dict[str, str]: ...


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    path.write_text("[]")
    return path


@pytest.fixture
def api(start: Start, tokens: Path) -> Iterator[httpx.Client]:
    with start(auth="tokens", tokens=tokens) as client:
        yield client


@pytest.fixture
def holder(tokens: Path, tmp_path: Path) -> Holder:
    """Makes a token; gives the header of its holder."""

    def make(*scopes: str, artifacts: tuple[str, ...] = ("*",)) -> dict[str, str]:
        out = tmp_path / "-".join(("token", *scopes))
        create_token(tokens, out, client="vendor", scopes=[*scopes], artifacts=[*artifacts], days=1)
        return {"Authorization": f"Bearer {out.read_text().strip()}"}

    return make


def upload(api: httpx.Client, headers: dict[str, str], name: str = "churn") -> httpx.Response:
    return api.post("/api/v1/model", data={"name": name, "version": "1"}, files={"file": b"x"}, headers=headers)


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/api/v1/openapi.json"])
def test_without_a_token_only_health_and_the_document_are_answered(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 200


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({}, "a bearer token is required"),
        ({"Authorization": "Basic dTpw"}, "a bearer token is required"),
        ({"Authorization": "Bearer wrong"}, "the token is unknown"),
    ],
)
def test_no_or_a_wrong_token_is_401(api: httpx.Client, header: dict[str, str], reason: str) -> None:
    for method, path in (
        ("GET", "model_catalog"),
        ("POST", "model"),
        ("DELETE", "model/1?version=1"),
        ("GET", "model/1"),
    ):
        answer = api.request(method, f"/api/v1/{path}", headers=header)
        assert (answer.status_code, answer.json()["detail"]) == (401, reason)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_an_expired_token_is_401_with_the_reason(api: httpx.Client, tokens: Path) -> None:
    grant = {"sha256": token_digest(b"old"), "client": "vendor", "scopes": ["read"], "artifacts": ["*"]}
    tokens.write_text(json.dumps([grant | {"expires_at": "2026-01-01T00:00:00Z"}]))
    answer = api.get("/api/v1/model_catalog", headers={"Authorization": "Bearer old"})
    assert (answer.status_code, answer.json()["detail"]) == (401, "the token expired at 2026-01-01T00:00:00Z")
    tokens.write_text(json.dumps([grant | {"expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}]))
    assert api.get("/api/v1/model_catalog", headers={"Authorization": "Bearer old"}).status_code == 404


def test_each_call_wants_its_scope(api: httpx.Client, holder: Holder) -> None:
    read, write, admin = holder("read"), holder("write"), holder("admin")
    assert upload(api, read).json()["detail"] == "the token of vendor lacks the scope 'write'"
    assert upload(api, write).status_code == 200
    assert api.get("/api/v1/model/1", headers=read).status_code == 200
    assert api.get("/api/v1/model/1", headers=write).status_code == 403
    assert api.patch("/api/v1/model/1", json={"tag": "x"}, headers=read).status_code == 403
    assert api.patch("/api/v1/model/1", json={"tag": "x"}, headers=write).status_code == 200
    assert api.delete("/api/v1/model/1?version=1", headers=write).status_code == 403
    assert api.get("/api/v1/model/1", headers=admin).status_code == 200
    assert api.delete("/api/v1/model/1?version=1", headers=admin).status_code == 200


def test_what_a_token_is_not_for_does_not_exist_for_its_holder(api: httpx.Client, holder: Holder) -> None:
    admin = holder("admin")
    sha256 = upload(api, admin, "secret").json()["sha256"]
    narrow = holder("read", "write", artifacts=("churn*",))
    assert upload(api, narrow, "other").json()["detail"] == "the token of vendor is not for an artifact named other"
    for path in ("model/1", "model/by_id/1", "model/1/data", f"artifacts/{sha256}", "model_catalog"):
        assert api.get(f"/api/v1/{path}", headers=narrow).status_code == 404
        assert api.get(f"/api/v1/{path}", headers=admin).status_code == 200
    assert api.patch("/api/v1/model/1", json={"tag": "x"}, headers=narrow).status_code == 404
    assert upload(api, narrow, "churn-2").status_code == 200  # the same bytes, under a name it is for
    assert api.get(f"/api/v1/artifacts/{sha256}", headers=narrow).status_code == 200


def test_revocation_is_noticed_by_a_running_server(api: httpx.Client, holder: Holder, tokens: Path) -> None:
    read = holder("read")
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 404
    assert revoke_tokens(tokens, client="vendor") == 1
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 401


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '[{"sha256": "x"}]'])
def test_a_broken_tokens_file_lets_nobody_in(
    api: httpx.Client, holder: Holder, tokens: Path, content: str | None
) -> None:
    read = holder("read")
    before = tokens.read_bytes()
    if content is None:
        tokens.unlink()
    else:
        tokens.write_text(content)
    answer = api.get("/api/v1/model_catalog", headers=read)
    assert (answer.status_code, str(tokens) in answer.text) == (503, False)
    tokens.write_bytes(before)
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 404


def test_the_token_is_checked_before_the_body_is_sent(api: httpx.Client) -> None:
    head = b"POST /api/v1/model HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_the_audit_and_the_log_name_the_client_and_no_secret(
    start: Start, tokens: Path, holder: Holder, tmp_path: Path
) -> None:
    write = holder("write")
    with capture_logs() as logs, start(auth="tokens", tokens=tokens) as api:
        upload(api, write)
        api.get("/api/v1/model_catalog?token=in-the-query", headers={"Authorization": "Bearer wrong-one"})
    assert [line["client"] for line in logs if line["event"] == "request"] == ["vendor", None]
    everything = json.dumps(logs) + (tmp_path / "records.sqlite").read_bytes().decode("latin-1")
    for secret in (write["Authorization"].removeprefix("Bearer "), "wrong-one", "in-the-query"):
        assert secret not in everything
    assert "vendor" in everything


def test_authentication_off_is_logged_loudly(start: Start) -> None:
    with capture_logs() as logs, start(auth="none"):
        pass
    assert logs[0]["log_level"] == "critical"
    assert logs[0]["event"].startswith("authentication_is_off")
