"""The catalogue page over HTTP: who sees what, forms and cookies, and that whatever stands in a field is text."""

import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import statements
from hxmlops_sharing import catalogue_data
from hxmlops_sharing import catalogue_views as views
from hxmlops_sharing.sessions import LASTS_S, Sessions
from hxmlops_sharing.tokens import create_token, revoke_tokens

ALL_BACKENDS = True
type Start = Callable[..., AbstractContextManager[httpx.Client]]
EXAMPLES = Path(statements.__file__).parent / "examples"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SCRIPT = "<script>alert(1)</script>"


class Party:
    """Someone with a token and a browser that keeps cookies."""

    def __init__(self, api: httpx.Client, token: str) -> None:
        self.token = token
        self.headers = {"Authorization": f"Bearer {token}"}
        self.browser = httpx.Client(base_url=api.base_url, timeout=30)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.browser.get(f"/catalogue{path}", **options)

    def form(self, page: httpx.Response, action: str, **fields: str) -> httpx.Response:
        """Send a page's form as a browser does."""
        start = page.text.index(f'action="{action}"')
        hidden = re.findall(
            r'type="hidden" name="(\w+)" value="([^"]*)"', page.text[start : page.text.index("</form", start)]
        )
        values = {name: html.unescape(value) for name, value in hidden} | fields
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        return self.browser.post(action, data=values, headers=headers)

    def sign_in(self, token: str | None = None, wanted: str = "") -> httpx.Response:
        page = self.get("/login", params={"next": wanted} if wanted else {})
        return self.form(page, "/catalogue/login", token=self.token if token is None else token)


class Everyone:
    def __init__(self, api: httpx.Client, tokens: Path, folder: Path) -> None:
        self.api, self.tokens, self.folder = api, tokens, folder
        self.parties: list[Party] = []

    def __call__(self, client: str, *scopes: str, artifacts: tuple[str, ...] = ("*",), signed_in: bool = True) -> Party:
        out = self.folder / f"{client}.token"
        create_token(self.tokens, out, client=client, scopes=[*scopes], artifacts=[*artifacts], days=30)
        party = Party(self.api, out.read_text().strip())
        self.parties.append(party)
        if signed_in:
            assert party.sign_in().status_code == 303
        return party


@pytest.fixture
def party(start: Start, tmp_path: Path) -> Iterator[Everyone]:
    """Makes parties, signed in at a Model Sharing API with tokens."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text("[]")
    with start(auth="tokens", tokens=tokens) as api:
        everyone = Everyone(api, tokens, tmp_path)
        yield everyone
        for each in everyone.parties:
            each.browser.close()


def upload(party: Party, name: str, version: str, data: bytes = b"bytes", **fields: Any) -> dict[str, Any]:
    form = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in fields.items()}
    answer = party.browser.post(
        "/api/v1/model", data={"name": name, "version": version, **form}, files={"file": data}, headers=party.headers
    )
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


def statement(type_: str, **body: Any) -> dict[str, Any]:
    example = json.loads((EXAMPLES / f"{type_}.json").read_text())
    example["body"] |= body
    return statements.sign(example, ec.generate_private_key(ec.SECP256R1()))


def text_of(page: httpx.Response) -> str:
    """What a person reads."""
    parser = Text()
    parser.feed(page.text)
    return " ".join(" ".join(parser.parts).split())


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def names_in(page: httpx.Response) -> list[str]:
    return [
        html.unescape(name)
        for name in re.findall(r'<th scope="row"><a href="[^"]*artifact\?[^"]*">([^<]*)</a>', page.text)
    ]


# Sessions


def test_who_has_not_signed_in_is_asked_to_and_brought_back(party: Everyone) -> None:
    visitor = party("vendor", "read", signed_in=False)
    upload(party("admin", "admin"), "churn", "1")
    asked = visitor.get("/artifact", params={"name": "churn"})
    assert asked.status_code == 303
    page = visitor.browser.get(asked.headers["location"])
    assert "Sign in" in page.text
    back = visitor.form(page, "/catalogue/login", token=visitor.token)
    assert back.headers["location"] == "/catalogue/artifact?name=churn"
    assert "churn" in text_of(visitor.browser.get(back.headers["location"]))


def test_after_signing_in_nobody_is_sent_elsewhere(party: Everyone) -> None:
    vendor = party("vendor", "read", signed_in=False)
    others = (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/api/v1",
        "/catalogue/../x",
        "/catalogue\n",
    )
    for wanted in (*others, "x", "javascript:alert(1)", "/catalogues"):
        vendor.browser.cookies.clear()
        assert vendor.sign_in(wanted=wanted).headers["location"] == "/catalogue", wanted


def test_the_cookie_is_for_the_page_alone_and_has_no_token_in_it(party: Everyone) -> None:
    vendor = party("vendor", "read", signed_in=False)
    cookie = next(each for each in vendor.sign_in().headers.get_list("set-cookie") if "session" in each)
    assert {"HttpOnly", "SameSite=strict", "Path=/catalogue", f"Max-Age={LASTS_S}"} <= set(cookie.split("; "))
    assert vendor.token not in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    assert vendor.browser.get("/api/v1/model_catalog", headers={"Authorization": f"Bearer {value}"}).status_code == 401


def test_behind_tls_the_cookie_is_secure(party: Everyone) -> None:
    vendor = party("vendor", "read", signed_in=False)
    vendor.browser.headers["X-Forwarded-Proto"] = "https"
    page = vendor.get("/login")
    assert "Secure" in page.headers["set-cookie"]


def test_the_api_takes_no_cookie(party: Everyone) -> None:
    admin = party("admin", "admin")
    upload(admin, "churn", "1")
    cookie = "; ".join(f"{name}={value}" for name, value in admin.browser.cookies.items())
    for call in (
        "GET /model_catalog", "GET /model/by_id/1", "POST /model", "DELETE /model/1?version=1", "GET /audit",
        "PUT /aliases/champion?name=churn", "POST /files",
    ):  # fmt: skip
        method, _, path = call.partition(" ")
        headers = {"Cookie": cookie, "Tus-Resumable": "1.0.0"}
        assert admin.browser.request(method, f"/api/v1{path}", headers=headers).status_code == 401, call


def test_other_tokens_are_refused_with_a_reason_in_the_page(party: Everyone) -> None:
    vendor = party("vendor", "read", signed_in=False)
    for token, status in (("", 401), ("nonsense", 401), ("a.b.c", 401), ("x" * 3000, 422), ("\u00fc", 401)):
        answer = vendor.sign_in(token=token)
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
        assert vendor.get("").status_code == 303


def test_a_token_that_may_not_read_opens_nothing(party: Everyone) -> None:
    writer = party("writer", "write", signed_in=False)
    answer = writer.sign_in()
    assert answer.status_code == 403
    assert "lacks the scope" in text_of(answer)


def test_revoking_a_token_ends_its_session_at_once(party: Everyone) -> None:
    vendor = party("vendor", "read")
    assert vendor.get("").status_code == 200
    revoke_tokens(party.tokens, client="vendor")
    assert vendor.get("").status_code == 303


def test_signing_out_ends_the_session(party: Everyone) -> None:
    vendor = party("vendor", "read")
    assert vendor.form(vendor.get(""), "/catalogue/logout").headers["location"] == "/catalogue/login"
    assert vendor.get("").status_code == 303


def test_sessions_end_by_themselves_and_altered_cookies_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(b"k" * 32)
    sealed = sessions.seal("token")
    assert sessions.open(sealed) == "token"
    for wrong in ("", "x", "\u00fc", sealed[:-2], sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]):
        assert sessions.open(wrong) is None
    assert Sessions(b"l" * 32).open(sealed) is None
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert sessions.open(sealed) is None


def test_forms_of_other_sites_are_refused(party: Everyone) -> None:
    vendor = party("vendor", "read")
    token = re.search(r'name="form_token" value="(\w+)"', vendor.get("").text)
    assert token is not None
    elsewhere = ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"})
    for headers in elsewhere:
        answer = vendor.browser.post("/catalogue/logout", data={"form_token": token[1]}, headers=headers)
        assert answer.status_code == 403
        assert vendor.get("").status_code == 200


def test_forms_without_this_sessions_token_are_refused(party: Everyone) -> None:
    vendor, other = party("vendor", "read"), party("other", "read")
    theirs = re.search(r'name="form_token" value="(\w+)"', other.get("").text)
    assert theirs is not None
    for fields in ({}, {"form_token": ""}, {"form_token": theirs[1]}, {"form_token": "0" * 64}):
        assert vendor.browser.post("/catalogue/logout", data=fields).status_code in (403, 415, 422)
    login = {"token": vendor.token, "form_token": theirs[1]}
    assert party.api.post("/catalogue/login", data=login).status_code == 403
    assert vendor.get("").status_code == 200


def test_what_is_no_form_of_ours_is_refused(party: Everyone) -> None:
    form = "application/x-www-form-urlencoded"
    many = b"&".join([b"a=b"] * 50)
    for body, media_type, status in (
        (b"{}", "application/json", 415), (b"x" * 70_000, form, 413), (b"x", form, 422), (many, form, 422),
        (b"a=\xff", form, 422),
    ):  # fmt: skip
        answer = party.api.post("/catalogue/login", content=body, headers={"Content-Type": media_type})
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")


def test_two_servers_of_a_database_share_sessions(party: Everyone, start: Start) -> None:
    vendor = party("vendor", "read")
    with start(auth="tokens", tokens=party.tokens):
        assert vendor.get("").status_code == 200


# What is shown to whom


def test_a_caller_sees_the_names_of_its_token_only(party: Everyone) -> None:
    admin = party("admin", "admin")
    for name in ("churn", "churn-eu", "fraud", "Churn", "ch[rn", "c_urn", "other"):
        upload(admin, name, "1")
    secret = upload(admin, "secret", "1")["modelIdentifier"]
    assert names_in(party("a", "read", artifacts=("churn*", "fraud")).get("")) == ["churn", "churn-eu", "fraud"]
    assert names_in(party("b", "read", artifacts=("ch[[]rn", "c_*")).get("")) == ["c_urn", "ch[rn"]
    assert names_in(party("c", "read", artifacts=("[!a-z]*",)).get("")) == ["Churn"]
    nobody = party("d", "read", artifacts=("none",))
    assert "No models yet" in nobody.get("").text
    for path in (
        f"/version/{secret}",
        f"/version/{secret}/bytes",
        f"/version/{secret}/record",
        "/artifact?name=secret",
    ):
        answer = nobody.get(path)
        assert answer.status_code == 404
        assert "secret" not in text_of(answer)


def test_admins_pages_are_for_admins(party: Everyone) -> None:
    vendor, admin = party("vendor", "read", "write"), party("admin", "admin")
    for path in ("/tokens", "/audit", "/audit/export", "/storage"):
        assert vendor.get(path).status_code == 403
        assert f'href="/catalogue{path}"' not in vendor.get("").text
        assert admin.get(path).status_code == 200


def test_without_authentication_everything_is_open_and_says_so(models: httpx.Client) -> None:
    page = models.get("/catalogue")
    assert page.status_code == 200
    assert "authentication is off" in page.text
    assert "Sign out" not in page.text
    assert models.get("/catalogue/login").headers["location"] == "/catalogue"
    verify = re.search(r'name="form_token" value="(\w+)"', models.get("/catalogue/audit").text)
    assert verify is not None
    assert "intact" in models.post("/catalogue/audit/verify", data={"form_token": verify[1]}).text
    assert models.post("/catalogue/audit/verify", data={"form_token": "x"}).status_code == 403


def test_names_are_listed_once_with_their_newest_version_that_matches(party: Everyone) -> None:
    admin = party("admin", "admin")
    upload(admin, "churn", "1.9.0", status="production", tag="blue", domain="vendor")
    upload(admin, "churn", "1.10.0", status="staging", tag="green sea", domain="vendor")
    upload(admin, "fraud", "2", status="training", tag="100%", domain="staging")
    assert "1.10.0" in admin.get("").text
    assert "1.9.0" not in admin.get("").text
    for query, names in (
        ({"name": "CHU"}, ["churn"]), ({"name": "%"}, []), ({"tag": "0%"}, ["fraud"]), ({"tag": "sea"}, ["churn"]),
        ({"state": "development"}, ["fraud"]), ({"state": "production"}, ["churn"]), ({"domain": "stag"}, ["fraud"]),
        ({"name": "u", "tag": "blue", "state": "production"}, ["churn"]),
        ({"name": "u", "tag": "blue", "state": "staging"}, []),
    ):  # fmt: skip
        assert names_in(admin.get("", params=query)) == names, query
    assert "1.9.0" in admin.get("", params={"state": "production"}).text
    assert "Nothing matches" in admin.get("", params={"name": "zzz"}).text


def test_long_lists_come_in_pages_that_miss_and_repeat_nothing(
    party: Everyone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_data, "PAGE", 3)
    admin = party("admin", "admin")
    names = [f"model-{number}" for number in range(8)]
    for name in names:
        upload(admin, name, "1", tag="x & y")
    for version in range(2, 8):
        upload(admin, "model-3", f"{version}.0.0")
    assert following(admin, "?tag=x+%26+y", names_in) == names
    versions = following(
        admin,
        "/artifact?name=model-3",
        lambda page: re.findall(r'version/\d+">([^<]*)</a>', page.text.partition("Aliases")[0]),
    )
    assert versions == [*(f"{version}.0.0" for version in range(7, 1, -1)), "1"]
    vendor = party("vendor", "read", artifacts=("model-[1357]",))
    assert following(vendor, "", names_in) == names[1::2]
    lines = following(admin, "/audit?action=upload", lambda page: re.findall(r'class="number">(\d+)</th>', page.text))
    assert len(lines) == len(set(lines)) == 14


def following(party: Party, path: str, items: Callable[[httpx.Response], list[str]]) -> list[str]:
    """The items of all pages of a list."""
    found: list[str] = []
    page = party.get(path)
    while True:
        found += items(page)
        onward = re.search(r'rel="next" href="([^"]*)"', page.text)
        if onward is None:
            return found
        page = party.browser.get(html.unescape(onward[1]))
        assert page.status_code == 200


def test_an_artifacts_page_has_versions_aliases_and_their_history(party: Everyone) -> None:
    admin, vendor = party("admin", "admin"), party("vendor", "read")
    old, new = (upload(admin, "churn", version)["modelIdentifier"] for version in ("1.0.0", "2.0.0"))
    for identifier in (old, new):
        admin.browser.put(
            "/api/v1/aliases/champion", params={"name": "churn"}, json={"identifier": identifier}, headers=admin.headers
        ).raise_for_status()
    page = text_of(vendor.get("/artifact", params={"name": "churn"}))
    assert "2.0.0 latest @champion" in page
    assert "History of aliases" in page
    admin.browser.delete(f"/api/v1/model/{old}", params={"version": "1.0.0"}, headers=admin.headers).raise_for_status()
    assert "deleted" not in text_of(vendor.get("/artifact", params={"name": "churn"}))
    assert "1.0.0 deleted" in text_of(admin.get("/artifact", params={"name": "churn"}))
    assert vendor.get(f"/version/{old}").status_code == 404
    assert "can restore it" in text_of(admin.get(f"/version/{old}"))
    assert admin.get(f"/version/{old}/bytes").status_code == 404


def test_a_versions_page_has_statements_energy_lineage_and_verdicts(party: Everyone) -> None:
    admin = party("admin", "admin")
    data_digest = "sha256:" + hashlib.sha256(b"data").hexdigest()
    source = upload(admin, "source", "1", b"data")["modelIdentifier"]
    dataset = json.loads((EXAMPLES / "evidence.json").read_text())["body"]["dataset"] | {
        "ciphertext_digest": data_digest
    }
    characteristics = {"statement": statement("evidence", dataset=dataset), "acceptance": statement("acceptance")}
    made = upload(
        admin, "churn", "1.0.1", b"model", characteristics=characteristics,
        parameters={"rate": 0.08, "grid": {"folds": [3, 5]}, "many": {str(number): number for number in range(500)}},
    )  # fmt: skip
    answer = admin.get(f"/version/{made['modelIdentifier']}")
    page = text_of(answer)
    for expected in (
        made["sha256"], "Evidence in statement", "roc auc 0.921 0.903 to 0.938", "training failed", "27.6 J",
        "13.8 J to 55.1 J",
        "2.63 mg", "40.8 J and 3.90 mg", "declared by the issuer", "Acceptance in acceptance accepted",
        "energy budget passed",
        "rate 0.08", "grid / folds 3, 5", "302 more members", "Audit lines of this version", "Nothing: this server",
    ):  # fmt: skip
        assert expected in page, expected
    assert f'<a href="/catalogue/version/{source}">source 1</a>' in answer.text


def test_what_the_server_verified_is_shown_by_criterion() -> None:
    verified = {
        "criteria": [
            {"criterion": "energy_budget", "passed": True, "detail": ""},
            {"criterion": "bom", "passed": False, "detail": SCRIPT},
        ],
    }
    assert views.criteria_of(verified) == [
        views.Criterion("energy budget", True),
        views.Criterion("bom", False, SCRIPT),
    ]
    assert views.criteria_of(None) == []


def test_a_protection_report_is_shown_in_words() -> None:
    summary = views.summary("statement", statement("protection"))
    facts = {fact.label: fact.text for fact in summary.facts}
    assert facts["k-anonymity"] == "k = 6 reached, 5 required"
    assert facts["Rows"] == "5,000 in, 40 suppressed (0.8 %, limit 2 %)"
    assert "not anonymous in the sense of the GDPR" in facts["Claim"]


@pytest.mark.parametrize("payload", ["", "e30=", "%%%", "bnVsbA==", 7, None, {}, "A" * (2 << 20)])
def test_what_only_looks_like_a_statement_is_said_to_be_unreadable(payload: Any) -> None:
    envelope = {"payloadType": statements.PAYLOAD_TYPE, "payload": payload, "signatures": [{"keyid": "x", "sig": ""}]}
    assert views.summary("statement", envelope).problem


def test_figures_are_for_people() -> None:
    assert [views.size_text(size) for size in (0, 1023, 1024, 1_054_720, 3 << 30, 5 << 50)] == [
        "0 B", "1023 B", "1.00 KiB", "1.01 MiB", "3.00 GiB", "5,120 TiB",
    ]  # fmt: skip
    assert [views.quantity(value, "J") for value in (0, 4.6e-05, 0.493, 27.55, 1234567)] == [
        "0 J", "46.0 µJ", "493 mJ", "27.6 J", "1.23 MJ",
    ]  # fmt: skip
    assert str(views.time_tag("2026-11-23T09:30:00Z")) == (
        '<time datetime="2026-11-23T09:30:00Z" title="2026-11-23T09:30:00Z">23 Nov 2026, 09:30 UTC</time>'
    )
    assert str(views.time_tag(SCRIPT)) == html.escape(SCRIPT)
    assert views.expiry("2000-01-01T00:00:00Z") == "expired"


def test_the_bytes_come_as_the_api_gives_them_and_on_the_same_record(party: Everyone) -> None:
    admin, vendor = party("admin", "admin"), party("vendor", "read", artifacts=("churn",))
    data = bytes(range(256)) * 5000
    identifier = upload(admin, "churn", "1", data)["modelIdentifier"]
    answer = vendor.get(f"/version/{identifier}/bytes")
    assert answer.content == data
    assert answer.headers["content-disposition"] == "attachment; filename=churn_1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    part = vendor.get(f"/version/{identifier}/bytes", headers={"Range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, data[256:512])
    assert vendor.get(f"/version/{identifier}/record").json()["name"] == "churn"
    lines = admin.browser.get("/api/v1/audit", headers=admin.headers).json()["lines"]
    downloads = [line for line in lines if line["action"] == "download"]
    assert [(line["client"], line["identifier"]) for line in downloads] == [("vendor", identifier)] * 2


def test_a_datasets_zip_and_page(start: Start) -> None:
    with start(kind="dataset") as api:
        form = {
            "name": "calls",
            "version": "1",
            "dataType": "synthetic",
            "parameters": json.dumps({"statement": statement("protection")}),
        }
        made = api.post("/api/v1/dataset", data=form, files={"datasetFile": b"rows", "dataModelFile": b"{}"}).json()
        assert names_in(api.get("/catalogue", params={"state": "synthetic"})) == ["calls"]
        page = api.get(f"/catalogue/version/{made['datasetIdentifier']}")
        for expected in ("synthetic", made["datasetSha256"], made["dataModelSha256"], "Protection", "k = 6 reached"):
            assert expected in text_of(page)
        assert api.get(f"/catalogue/version/{made['datasetIdentifier']}/bytes").content == api.get(
            f"/api/v1/dataset/by_id/{made['datasetIdentifier']}"
        ).content  # fmt: skip


# Admin's pages


def test_tokens_are_listed_without_anything_that_opens(party: Everyone) -> None:
    admin = party("admin", "admin")
    vendor = party("vendor", "read", artifacts=("churn*",), signed_in=False)
    page = admin.get("/tokens")
    assert "vendor read churn*" in text_of(page)
    digest = hashlib.sha256(vendor.token.encode()).hexdigest()
    assert vendor.token not in page.text
    assert digest not in page.text


def test_the_audit_is_filtered_verified_and_exported(party: Everyone) -> None:
    admin = party("admin", "admin")
    upload(admin, "churn", "1")
    upload(admin, "fraud", "1")
    page = admin.get("/audit", params={"action": "upload", "name": "churn"})
    assert "intact" in page.text
    assert "model churn 1" in text_of(page)
    assert "fraud" not in text_of(page)
    assert "Nothing matches" in admin.get("/audit", params={"client": "nobody"}).text
    assert "intact" in admin.form(page, "/catalogue/audit/verify").text
    export = admin.get("/audit/export")
    lines = [json.loads(line) for line in export.text.splitlines()]
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    assert {"grant", "login", "upload"} <= {line["action"] for line in lines}


def test_storage_counts_what_is_kept(party: Everyone) -> None:
    admin = party("admin", "admin")
    upload(admin, "churn", "1", b"x" * 2048)
    upload(admin, "churn", "2", b"x" * 2048)
    admin.browser.post(
        "/api/v1/files", headers=admin.headers | {"Tus-Resumable": "1.0.0", "Upload-Length": "1048576"}
    ).raise_for_status()
    page = text_of(admin.get("/storage"))
    for expected in (
        "Stored 2.00 KiB in 1 different file",
        "Versions 2",
        "Open uploads 1 0 B of 1.00 MiB received",
        "admin",
    ):
        assert expected in page


# The pages as such


def test_script_in_any_field_is_text(party: Everyone) -> None:
    admin = party("admin", "admin")
    fields = {
        "status": "production",
        "tag": f'"{SCRIPT}',
        "domain": f"'{SCRIPT}",
        "library": SCRIPT,
        "libraryVersion": SCRIPT,
        "class": SCRIPT,
    }
    made = upload(
        admin, f"{SCRIPT}&name", f"1{SCRIPT}", b"x", **fields, parameters={SCRIPT: SCRIPT, "list": [{SCRIPT: SCRIPT}]},
        characteristics={SCRIPT: {"payloadType": statements.PAYLOAD_TYPE, "payload": SCRIPT}},
    )  # fmt: skip
    pages = [
        "",
        f"?name={SCRIPT}&tag={SCRIPT}",
        f"/version/{made['modelIdentifier']}",
        f"/audit?client={SCRIPT}",
        f"/audit?name={SCRIPT}%26name",
        f"/login?next={SCRIPT}",
        f"/nowhere/{SCRIPT}",
    ]
    for path in [*pages, "/artifact?name=" + SCRIPT + "%26name"]:
        page = admin.get(path)
        assert "<script" not in page.text, path
        assert page.headers["content-security-policy"] == POLICY
    assert SCRIPT in text_of(admin.get(""))


def test_every_answer_is_a_page_with_its_headers(party: Everyone) -> None:
    vendor = party("vendor", "read")
    for path, status in (
        ("/nowhere", 404), ("/version/0", 404), ("/version/x", 404), ("/version/99999999999", 404), ("/version/7", 404),
        ("/artifact", 404), ("/artifact?name=x", 404), ("/static/../catalogue.py", 404), ("/static/none.css", 404),
        ("/tokens", 403), ("", 200), ("/login", 303),
    ):  # fmt: skip
        answer = vendor.get(path)
        assert answer.status_code == status, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if status != 303:
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.text.count("<h1") == 1
            assert answer.headers["x-request-id"] in answer.text


def test_a_database_that_is_away_is_a_page_too(party: Everyone, monkeypatch: pytest.MonkeyPatch) -> None:
    from hxmlops_sharing.database import DatabaseUnavailable

    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("gone")

    vendor = party("vendor", "read")
    monkeypatch.setattr(catalogue_data, "artifacts", away)
    answer = vendor.get("")
    assert answer.status_code == 503
    assert "<h1>Service Unavailable</h1>" in answer.text
    assert "gone" not in answer.text


def test_the_style_sheet_may_be_kept_and_the_root_leads_to_the_page(party: Everyone) -> None:
    page = party("vendor", "read").get("")
    style = re.search(r'<link rel="stylesheet" href="([^"]*)"', page.text)
    assert style is not None
    answer = party.api.get(style[1])
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert "style=" not in page.text
    assert party.api.get("/").headers["location"] == "/catalogue"
    assert party.api.head("/catalogue/login").status_code == 200


def test_behind_a_prefix_every_link_has_it(start: Start) -> None:
    with start(path_prefix="/models") as api:
        api.post("/api/v1/model", data={"name": "churn", "version": "1"}, files={"file": b"x"}).raise_for_status()
        for path in ("", "/artifact?name=churn", "/version/1", "/audit", "/storage", "/tokens", "/nowhere"):
            links = re.findall(r'(?:href|src|action)="([^"#][^"]*)"', api.get(f"/catalogue{path}").text)
            assert links
            assert all(link.startswith("/models/catalogue") for link in links), links
