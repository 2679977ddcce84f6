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
from issuer import AUDIENCE, Issuer
from structlog.testing import capture_logs

from hxmlops_sharing import registry
from hxmlops_sharing.__main__ import main
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


@pytest.mark.parametrize("limit", [None, 1, 2, 4, 5])
def test_a_catalogue_of_many_pages_has_what_its_reader_may_see(
    api: httpx.Client, holder: Holder, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(registry, "CATALOGUE_PAGE", 2)
    admin, narrow = holder("admin"), holder("read", artifacts=("churn*",))
    parameters = {"rate": 0.1, "name": "né\U0001f600", "deep": json.loads("[" * 900 + "]" * 900), "big": 2**70}
    names = ["churn-1", "a", "churn-2", "b", "c", "d", "e", "churn-3", "churn-4", "f"]
    for name in names:
        data = {"name": name, "version": "1", "parameters": json.dumps(parameters)}
        assert api.post("/api/v1/model", data=data, files={"file": b"x"}, headers=admin).status_code == 200
    seen, url = [], "/api/v1/model_catalog" + (f"?limit={limit}" if limit else "")
    while url:
        answer = api.get(url, headers=narrow)
        if answer.status_code == 404:
            break  # the page behind the last, when that was full
        seen += answer.json()["models"]
        url = answer.links.get("next", {}).get("url", "")
    assert [each["name"] for each in seen] == ["churn-1", "churn-2", "churn-3", "churn-4"]
    assert all(each["parameters"] == parameters for each in seen)
    assert seen == [api.get(f"/api/v1/model/{each['modelIdentifier']}/data", headers=narrow).json() for each in seen]


def test_a_record_by_version_is_the_same_however_it_is_asked_for(api: httpx.Client, holder: Holder) -> None:
    admin, narrow = holder("admin"), holder("read", artifacts=("other*",))
    upload(api, admin)
    url = "/api/v1/model/1/data?version="
    assert api.get(url + "1", headers=admin).json() == api.get(url + "1&more=1", headers=admin).json()
    for headers, version in ((admin, "2"), (narrow, "1")):
        quick, plain = api.get(url + version, headers=headers), api.get(url + version + "&more=1", headers=headers)
        assert (quick.status_code, quick.json()["detail"]) == (404, plain.json()["detail"])


def test_who_may_annotate_adds_and_changes_nothing(api: httpx.Client, holder: Holder) -> None:
    admin, annotate, read = holder("admin"), holder("annotate"), holder("read")
    upload(api, admin)
    url = "/api/v1/model/1/characteristics"
    assert api.post(url, json={"verdict": "accepted"}, headers=read).status_code == 403
    assert api.post(url, json={"verdict": "accepted"}, headers=annotate).json()["characteristics"] == {
        "verdict": "accepted"
    }
    assert api.post(url, json={"verdict": "accepted"}, headers=annotate).status_code == 200  # again, as a retry does
    refused = api.post(url, json={"verdict": "rejected", "more": 1}, headers=annotate)
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "the token of vendor may add, not replace: 'verdict'",
    )
    for method, path, body in (
        ("PUT", url, {"verdict": "x"}),
        ("PATCH", "/api/v1/model/1", {"tag": "x"}),
        ("GET", "/api/v1/model/1/data", None),
        ("DELETE", "/api/v1/model/1?version=1", None),
    ):
        assert api.request(method, path, json=body, headers=annotate).status_code == 403, method
    assert upload(api, annotate, "other").status_code == 403
    record = api.get("/api/v1/model/1/data", headers=admin).json()
    assert record["characteristics"] == {"verdict": "accepted"}
    assert api.post("/api/v1/model/1/parameters", json={"a": 1}, headers=annotate).status_code == 200


def test_a_narrow_annotator_finds_nothing_else(api: httpx.Client, holder: Holder) -> None:
    upload(api, holder("admin"), "secret")
    narrow = holder("annotate", artifacts=("churn*",))
    assert api.post("/api/v1/model/1/characteristics", json={"a": 1}, headers=narrow).status_code == 404


def test_revocation_is_noticed_by_a_running_server(api: httpx.Client, holder: Holder, tokens: Path) -> None:
    read = holder("read")
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 404
    assert revoke_tokens(tokens, client="vendor") == 1
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 401


def test_grants_and_revocations_are_in_the_audit(api: httpx.Client, holder: Holder, tokens: Path) -> None:
    admin, read = holder("admin"), holder("read")
    token = read["Authorization"].removeprefix("Bearer ")
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 404
    document = json.loads(tokens.read_text())
    tokens.write_text(json.dumps([grant for grant in document if grant["sha256"] != token_digest(token.encode())]))
    assert api.get("/api/v1/model_catalog", headers=read).status_code == 401
    lines = api.get("/api/v1/audit", headers=admin).json()["lines"]
    told = [(line["action"], line["client"], line["detail"]["scopes"]) for line in lines if "scopes" in line["detail"]]
    assert told == [("grant", "vendor", ["admin"]), ("grant", "vendor", ["read"]), ("revoke", "vendor", ["read"])]
    digest = token_digest(token.encode()).removeprefix("sha256:")
    assert digest[:12] in json.dumps(lines)
    assert digest[:13] not in json.dumps(lines)


def test_one_request_too_many_is_429(start: Start, tokens: Path, holder: Holder) -> None:
    read = holder("read")
    with start(auth="tokens", tokens=tokens, requests_per_minute=3) as api:
        answers = [api.get("/api/v1/model_catalog", headers=read) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [404, 404, 404, 429, 429]
        assert int(answers[-1].headers["retry-after"]) in range(1, 21)
        assert answers[-1].json()["detail"].startswith("vendor may make 3 requests a minute: wait ")
        guesses = [api.get("/api/v1/model_catalog", headers={"Authorization": f"Bearer {n}"}) for n in range(5)]
        assert [answer.status_code for answer in guesses] == [401, 401, 401, 429, 429]
        assert api.get("/health").status_code == 200


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_tokens_of_an_issuer_beside_those_of_the_file(start: Start, tokens: Path, holder: Holder) -> None:
    issuer = Issuer()
    settings = {"auth": "tokens", "tokens": tokens, "oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    try:
        with start(**settings) as api:
            assert upload(api, holder("write")).status_code == 200

            def get(token: str) -> httpx.Response:
                return api.get("/api/v1/model/1", headers={"Authorization": f"Bearer {token}"})

            assert get(issuer.token("ES256")).content == b"x"
            assert get(issuer.token("ES256", hxmlops_artifacts=["other*"])).status_code == 404
            lacking = get(issuer.token("ES256", scope="write:model read:dataset"))
            assert (lacking.status_code, lacking.json()["detail"]) == (403, "the token of mno lacks the scope 'read'")
            expired = get(issuer.token("ES256", exp=1))
            assert (expired.status_code, expired.json()["detail"]) == (401, "the token has expired")
            assert expired.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        with start(**settings | {"tokens": None}) as api:
            assert get_status(api, issuer.token("ES256")) == 200
            assert get_status(api, holder("read")["Authorization"].removeprefix("Bearer ")) == 401
    finally:
        issuer.stop()


def get_status(api: httpx.Client, token: str) -> int:
    return api.get("/api/v1/model/1", headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_download_leaves_a_receipt_that_both_can_show(
    start: Start, tokens: Path, holder: Holder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "create", "--out", str(tmp_path / "key.pem")]) == 0
    said = capsys.readouterr().out
    (tmp_path / "key.pub").write_text(said[said.index("-----BEGIN") :])
    out = tmp_path / "mno.token"
    create_token(
        tokens, out, client="mno", scopes=["read"], artifacts=["*"], days=1, purpose="testing", recipient="operator"
    )
    mno = {"Authorization": f"Bearer {out.read_text().strip()}"}
    with start(auth="tokens", tokens=tokens, signing_key=tmp_path / "key.pem", issuer="software-vendor") as api:
        upload(api, holder("admin"))
        answer = api.get("/api/v1/model/1", headers=mno)
        where = answer.headers["x-hxmlops-receipt"]
        receipt = api.get(where, headers=mno)
        while receipt.status_code == 409:  # its end is put on record when the bytes have left
            receipt = api.get(where, headers=mno)
        assert receipt.status_code == 200
        assert api.get(where, headers=holder("admin")).status_code == 200
        assert api.get(where, headers=holder("read")).status_code == 404  # vendor's, not mno's
    (tmp_path / "receipt.json").write_bytes(receipt.content)
    (tmp_path / "model").write_bytes(answer.content)
    words = ["--receipt", tmp_path / "receipt.json", "--key", tmp_path / "key.pub", "--file", tmp_path / "model"]
    assert main(["receipt", "verify", *map(str, words)]) == 0
    proven = json.loads(capsys.readouterr().out)
    said_of = {
        "issuer": "software-vendor",
        "client": "mno",
        "recipient": "operator",
        "purpose": "testing",
        "name": "churn",
        "bytes": 1,
        "complete": True,
    }
    assert proven | said_of == proven


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
