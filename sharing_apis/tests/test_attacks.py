"""Attacks on a real server, each refused: nothing foreign is read, written, run or told, and the server lives on.

One table, `ATTACKS`. Requests go over raw sockets, so that whatever can be sent is sent.
"""

import base64
import contextlib
import gzip
import hashlib
import hmac
import html
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2 as httpx
import pytest
from issuer import AUDIENCE, RSA_KEY, Issuer
from joserfc.jwk import RSAKey

from hxmlops_evidence import keys
from hxmlops_evidence.trust import import_card
from hxmlops_sharing import audit, protocol, registry
from hxmlops_sharing.tokens import create_token, revoke_tokens, token_digest

MIB = 1 << 20
SECRET = b"the weights that nobody else may have"
DIGEST = hashlib.sha256(SECRET).hexdigest()
UNKNOWN = "1" * 64
TOLD = ("Traceback", "site-packages", "hxmlops_sharing/", ".py", "sqlalchemy", "SELECT ", "root:")
"""What no answer may have in it."""
TUS = {"Tus-Resumable": "1.0.0"}
FORM = "multipart/form-data; boundary=b"
OCTETS = "application/octet-stream"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>{{7*7}}"
SQL = "churn'; DROP TABLE audit; DELETE FROM models; --"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class World:
    """A server with a secret on it, those who hold tokens for it, and mallory, whose token is for `churn*`."""

    before: object
    patch: pytest.MonkeyPatch
    trap: socket.socket

    def __init__(self, api: httpx.Client, folder: Path, tokens: Path, start: Any) -> None:
        self.address = (api.base_url.host, api.base_url.port or 80)
        self.folder, self.tokens, self.start = folder, tokens, start
        self.issuer: Issuer | None = None
        self.datasets: World | None = None

    def token(self, who: str) -> str:
        return (self.tokens.parent / f"{who}.token").read_text().strip()

    def grant(self, who: str, *scopes: str, artifacts: Sequence[str] = ("*",), days: int = 1, **more: Any) -> str:
        out = self.tokens.parent / f"{who}.token"
        create_token(self.tokens, out, client=who, scopes=[*scopes], artifacts=[*artifacts], days=days, **more)
        return self.token(who)

    def raw(self, *data: bytes, methods: Sequence[str] = ("GET",) * 9, pause: float = 0.02) -> list[Answer]:
        """Send bytes, some pause between the parts; all answers until the server hangs up."""
        received = b""
        with socket.create_connection(self.address, timeout=10) as connection:
            with contextlib.suppress(ConnectionError):
                for number, part in enumerate(data):
                    time.sleep(pause if number else 0)
                    connection.sendall(part)
            with contextlib.suppress(ConnectionError):
                while block := connection.recv(1 << 20):
                    received += block
        answers = list(_answers(received, iter(methods)))
        for answer in answers:
            self.check(answer, b"".join(data))
        return answers

    def send(
        self, method: str, path: str, who: str = "mallory", *, body: bytes = b"", type_: str = "", json_: Any = None,
        chunked: bool = False, headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    ) -> Answer:  # fmt: skip
        """One request, its path as it stands here."""
        if json_ is not None:
            body, type_ = json.dumps(json_).encode(), type_ or "application/json"
        fields = [("Host", "sharing.example"), ("Connection", "close")]
        fields += [("Authorization", f"Bearer {self.token(who)}")] if who else []
        fields += [("Content-Type", type_)] if type_ else []
        fields += headers.items() if isinstance(headers, Mapping) else headers
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in _blocks(body)) + b"0\r\n\r\n"
        elif body or method in ("POST", "PUT", "PATCH"):
            fields.append(("Content-Length", str(len(body))))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
        (answer,) = self.raw(head.encode() + body, methods=[method])
        return answer

    def get(self, path: str, who: str = "mallory", **headers: str) -> Answer:
        return self.send("GET", f"/api/v1/{path}", who, headers=_named(headers))

    def post(self, body: bytes, who: str = "mallory", **more: Any) -> Answer:
        """A form, as it stands, as a new model."""
        return self.send("POST", "/api/v1/model", who, body=body, **{"type_": FORM} | more)

    def upload(self, who: str = "mallory", data: bytes = b"x", filename: str = "f", **fields: str) -> Answer:
        """A model as its owner would send it."""
        return self.post(form({"name": "churn", "version": "1"} | fields, {"file": data}, filename), who)

    def file(self, who: str = "mallory", data: bytes = b"x", **headers: str) -> str:
        """A file sent by tus; its path."""
        fields = TUS | {"Upload-Length": str(len(data))} | _named(headers)
        answer = self.send(
            "POST", "/api/v1/files", who, body=data, type_="application/offset+octet-stream", headers=fields
        )
        assert answer.status == 201, answer
        return answer.headers["location"]

    def check(self, answer: Answer, sent: bytes = b"") -> None:
        """Nothing is told that should not be, whatever the answer."""
        text = f"{answer.headers}\n" + answer.body.decode(errors="replace")
        own = self.token("owner").encode() in sent
        for word in (*TOLD, str(self.folder), *([] if own else [SECRET.decode()])):
            assert word not in text or word.encode() in sent, text
        assert own or DIGEST not in text or DIGEST.encode() in sent, text
        assert answer.status != 500, text
        if answer.status >= 400 and answer.body and not answer.headers["content-type"].startswith("text/html"):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == answer.status
            assert isinstance(answer.json["detail"], str)

    def state(self) -> object:
        """What no attack may change: the secret and its record, other names, what is beside the store."""
        bytes_ = self.get(f"artifacts/{DIGEST}", "owner").body
        every = self.get("model_catalog?status=production&status=staging&status=training", "owner").json["models"]
        others = [each for each in every if not each["name"].startswith("churn")]
        return bytes_, others, sorted(path.name for path in self.folder.iterdir() if path.suffix != ".sqlite-wal")

    def verdict(self) -> audit.Verdict:
        """The audit's chain, computed again."""

        async def verify() -> audit.Verdict:
            service = self.start.host.app.state.service
            async with service.database.read() as connection:
                return await audit.verify(connection)

        verdict: audit.Verdict = self.start.host.run(verify())
        return verdict

    def browser(self, who: str = "") -> "Browser":
        return Browser(self, who)


class Browser:
    """Keeps cookies and sends forms with their hidden fields."""

    def __init__(self, world: World, who: str) -> None:
        self.world = world
        self.cookies: dict[str, str] = {}
        if who:
            answer = self.form("/catalogue/login", "/catalogue/login", token=world.token(who))
            assert answer.status == 303, answer

    def go(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        type_ = "application/x-www-form-urlencoded" if body else ""
        answer = self.world.send(method, path, "", body=body, type_=type_, headers=cookie | _named(headers))
        self.cookies |= dict(re.findall(r"^([^=]+)=([^;]*)", answer.headers.get("set-cookie", ""), re.MULTILINE))
        return answer

    def form(self, page: str, action: str, headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
        text = self.go("GET", page).body.decode()
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)
        values = {name: html.unescape(value) for name, value in hidden} | fields
        return self.go(
            "POST", action, urlencode(values).encode(), **{"Sec-Fetch-Site": "same-origin", **(headers or {})}
        )


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _blocks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


def _answers(data: bytes, methods: Iterator[str]) -> Iterator[Answer]:
    """Answers one behind the other, read as a proxy in front would read them; nothing may be left over."""
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        first, *lines = head.decode("latin-1").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 [1-5]\d\d [A-Za-z ]*", first), first
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers or name.lower() == "set-cookie", f"{name} is there twice"
            headers[name.lower()] = "\n".join(filter(None, (headers.get(name.lower()), value)))
        status, body = int(first[9:12]), b""
        if next(methods) != "HEAD" and status not in (204, 304):
            if headers.get("transfer-encoding") == "chunked":
                while (size := int(data.partition(b"\r\n")[0], 16)) > 0:
                    data = data.partition(b"\r\n")[2]
                    body, data = body + data[:size], data[size + 2 :]
                data = data.partition(b"\r\n\r\n")[2]
            else:
                size = int(headers["content-length"])
                assert len(data) >= size, f"{size} bytes are announced, {len(data)} come: {head!r}"
                body, data = data[:size], data[size:]
        yield Answer(status, headers, body)


def part(name: str, data: bytes = b"x", more: bytes = b"") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"'.encode() + more + b"\r\n\r\n" + data + b"\r\n"


def form(texts: Mapping[str, str], files: Mapping[str, bytes], filename: str = "f") -> bytes:
    parts = [part(name, value.encode()) for name, value in texts.items()]
    parts += [part(name, data, f'; filename="{filename}"'.encode()) for name, data in files.items()]
    return b"".join(parts) + b"--b--\r\n"


def query(**values: str) -> str:
    return urlencode(values, quote_via=quote)


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as it stands, but for Host."""
    return "\r\n".join((line, "Host: a", *fields, "", "")).encode("latin-1") + body


# --- attacks of more than a line -----------------------------------------------------------------------------------


def inert(answer: Answer, **record: str) -> Answer:
    """The upload was taken, its words as words."""
    assert {name: answer.json[name] for name in record} == record
    return answer


def equal(*answers: Answer) -> list[Answer]:
    """Who asks cannot tell one from the other."""
    words = [(each.status, *(each.json[name] for name in ("type", "title", "detail"))) for each in answers]
    told = {str(each).replace(DIGEST, UNKNOWN) for each in words}
    assert len(told) == 1, told
    return [*answers]


def slow_head(world: World) -> list[Answer]:
    world.patch.setattr(protocol, "HEAD_S", 0.3)
    return world.raw(b"GET /live HTTP/1.1\r\n", *[b"X"] * 5, pause=0.05)


def slow_body(world: World) -> list[Answer]:
    world.patch.setattr(protocol, "PROGRESS_S", 0.3)
    head = request(
        "POST /api/v1/model?name=churn&version=slow HTTP/1.1", f"Authorization: Bearer {world.token('mallory')}",
        f"Content-Type: {OCTETS}", "Content-Length: 100000",
    )  # fmt: skip
    return world.raw(head, *[b"x"] * 5, pause=0.05)


def many_idle(world: World) -> Answer:
    """200 connections that say nothing keep nobody waiting."""
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(world.address)).sendall(b"GET ")
        started = time.monotonic()
        answer = world.get("model/1/data")
        assert time.monotonic() - started < 5
    return answer


def smuggled_body(world: World) -> list[Answer]:
    """What looks like a request in the body of a refused one is not answered; the one behind it is, once."""
    inner = request("GET /api/v1/health HTTP/1.1", "Content-Length: 0")
    outer = request("POST /api/v1/model HTTP/1.1", f"Content-Length: {len(inner)}", body=inner)
    refused, alive = world.raw(outer + request("GET /live HTTP/1.1", "Connection: close"))
    assert alive.json == {"status": "UP"}
    return [refused]


def endless(world: World, start: bytes) -> list[Answer]:
    """A chunk's extension, or a trailer, that does not end is cut off before it fills the memory."""
    head = request(
        "POST /api/v1/model HTTP/1.1", f"Authorization: Bearer {world.token('mallory')}",
        "Content-Type: application/json", "Transfer-Encoding: chunked",
    )  # fmt: skip
    return world.raw(head + start, *[b"a" * (9 << 10)] * 4)


def pipelined_override(world: World, method: str, override: str) -> list[Answer]:
    """Both answers begin where whoever is in front expects them."""
    who = f"Authorization: Bearer {world.token('mallory')}"
    line = f"{method} /api/v1/files/{'0' * 32} HTTP/1.1"
    first, alive = world.raw(
        request(line, who, "Tus-Resumable: 1.0.0", f"X-HTTP-Method-Override: {override}")
        + request("GET /live HTTP/1.1", "Connection: close"),
        methods=[method, "GET"],
    )
    assert alive.json == {"status": "UP"}
    return [first]


def trailer_token(world: World) -> list[Answer]:
    body = b"2\r\n{}\r\n0\r\n" + f"Authorization: Bearer {world.token('owner')}\r\n\r\n".encode()
    fields = ("Content-Type: application/json", "Transfer-Encoding: chunked", "Connection: close")
    return world.raw(request("POST /api/v1/model HTTP/1.1", *fields, body=body))


def untouched(world: World, attack: Callable[[str], Answer]) -> Answer:
    """The attack is given a URL; nobody may come to it."""
    answer = attack(f"http://127.0.0.1:{world.trap.getsockname()[1]}")
    with pytest.raises(BlockingIOError):
        world.trap.accept()
    return answer


def revoked(world: World) -> Answer:
    world.grant("leaver", "read", artifacts=["churn*"])
    assert world.get("aliases?name=churn", "leaver").status == 200
    revoke_tokens(world.tokens, client="leaver")
    return world.get("model/1/data", "leaver")


def bearer(world: World, token: str) -> Answer:
    return world.send("GET", "/api/v1/model/1/data", "", headers={"Authorization": f"Bearer {token}"})


def jwt(world: World, *args: Any, **named: Any) -> Answer:
    assert world.issuer is not None
    return bearer(world, world.issuer.token(*args, **named))


def unsigned(world: World) -> Answer:
    assert world.issuer is not None
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, world.issuer.claims(scope="admin:model"))]
    return bearer(world, ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts) + ".")


def public_key_as_secret(world: World) -> Answer:
    assert world.issuer is not None
    head, claims = {"alg": "HS256", "kid": "rsa"}, world.issuer.claims(scope="admin:model")
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (head, claims))
    mac = hmac.digest(RSA_KEY.as_pem(private=False), signed, "sha256")
    return bearer(world, (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode())


def every_grant_is_compared(world: World) -> Answer:
    """How long a token takes to be refused tells nothing of which grant it is nearest to."""
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    grants = [each["sha256"] for each in json.loads(world.tokens.read_text())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmac, "compare_digest", compare)
        for token in (world.token("mallory"), "wrong"):
            compared.clear()
            answer = bearer(world, token)
            assert compared[: len(grants)] == grants
    return answer


class Elements(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def script(world: World) -> list[Answer]:
    """Whatever stands in a field is text on every page."""
    name, objects = f"churn{SCRIPT}", json.dumps({SCRIPT: [SCRIPT, {SCRIPT: SCRIPT}]})
    words = dict.fromkeys(("version", "library", "libraryVersion", "domain", "class", "tag"), SCRIPT)
    texts = words | {"name": name, "parameters": objects, "characteristics": objects}
    record = inert(world.post(form(texts, {"file": b"x"})), name=name, **words)
    identifier = record.json["modelIdentifier"]
    path = f"/api/v1/aliases/champion?{query(name=name)}"
    assert world.send("PUT", path, json_={"identifier": identifier}).status == 200
    browser, pages = (
        world.browser("owner"),
        ["", "/artifact", "/audit", f"/version/{identifier}", "/tokens", "/nothing"],
    )
    answers = []
    for page in pages:
        answer = browser.go("GET", f"/catalogue{page}?{query(name=name, tag=SCRIPT, client=SCRIPT)}")
        for tag, attributes in Elements(answer.body).found:
            assert tag not in ("script", "svg", "iframe", "object", "embed"), answer.body
            assert tag != "img" or attributes["src"] == "/catalogue/static/icon.svg"
            assert not any(each.startswith("on") for each in attributes)
            assert not str(attributes.get("href", "")).startswith(("javascript:", "data:", "//", "http"))
        assert answer.status == (404 if page == "/nothing" else 200)
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        answers.append(answer)
    assert SCRIPT in html.unescape(answers[3].body.decode())
    assert world.send("DELETE", f"/api/v1/model/{identifier}?version=latest", "owner").status == 200
    return answers[-1:]


def stolen_form(world: World) -> Answer:
    """A form's token is of one session: mallory's own does not fit the owner's."""
    text = world.browser("mallory").go("GET", "/catalogue").body.decode()
    (token,) = re.findall(r'name="form_token" value="([^"]*)"', text)
    return world.browser("owner").go("POST", "/catalogue/audit/verify", urlencode({"form_token": token}).encode())


def login_by_link(world: World) -> Answer:
    browser = world.browser()
    answer = browser.go("GET", f"/catalogue/login?token={world.token('mallory')}")
    assert not any("session" in name for name in browser.cookies)
    assert browser.go("GET", "/catalogue").status == 303
    return answer


def open_redirect(world: World) -> list[Answer]:
    answers = []
    for wanted in (
        "//evil.example",
        "https://evil.example/catalogue",
        "/catalogue\\..\\x",
        "/\\evil",
        "//[",
        "\r\nSet-Cookie: a=b",
    ):
        browser = world.browser()
        page = f"/catalogue/login?{query(next=wanted)}"
        answers.append(browser.form(page, "/catalogue/login", token=world.token("mallory"), next=wanted))
        assert answers[-1].headers["location"] == "/catalogue"
    return answers


def cookie_at_the_api(world: World) -> Answer:
    cookies = world.browser("owner").cookies
    fields = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    return world.send("GET", "/api/v1/model_catalog", "", headers=fields)


def altered_cookie(world: World) -> Answer:
    browser = world.browser("mallory")
    browser.cookies = {name: value[:-6] + "AAAAAA" for name, value in browser.cookies.items()}
    return browser.go("GET", "/catalogue")


def session_of_revoked(world: World) -> Answer:
    world.grant("visitor", "read", artifacts=["churn*"])
    browser = world.browser("visitor")
    assert browser.go("GET", "/catalogue").status == 200
    revoke_tokens(world.tokens, client="visitor")
    return browser.go("GET", "/catalogue")


def cached(world: World, status: int, **headers: str) -> Answer:
    """Bytes that a shared cache must not keep, and must not give to another."""
    answer = world.get(f"artifacts/{DIGEST}", "owner", **headers)
    assert "private" in answer.headers["cache-control"]
    assert answer.headers["vary"] == "Authorization"
    assert (answer.body == SECRET) == (status == 200)
    return answer


def many_ranges(world: World, ranges: str) -> Answer:
    answer = world.get(f"artifacts/{DIGEST}", "owner", Range=f"bytes={ranges}")
    assert len(answer.body) < 2 * len(SECRET) + 32_000
    return answer


def parallel(send: Callable[[int], Answer]) -> list[Answer]:
    """Of eight at once, one is within the quota."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert sorted(each.status for each in answers)[:2] in ([200, 507], [201, 507])
    return [each for each in answers if each.status >= 400]


def rate(world: World) -> list[Answer]:
    world.grant("greedy", "read", artifacts=["churn*"], requests_per_minute=5)
    paths = ("model_catalog", "model_catalog/", "model/catalog", "model_catalog?x=1", "model/1/data")
    spent = [world.get(path, "greedy").status for path in paths]
    assert 429 not in spent
    others = [
        world.get(path, "greedy", X_Forwarded_For="8.8.8.8") for path in (*paths, "MODEL_CATALOG/../model_catalog")
    ]
    assert others.pop().status == 404
    return others


def declared(world: World, digest: str, data: bytes = b"guess") -> Answer:
    """Bytes that are not those of the digest that is declared for them."""
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    return world.send(
        "POST", "/api/v1/model?name=churn&version=guess", body=data, type_=OCTETS,
        headers={"Content-Digest": f"sha-256=:{encoded}:"},
    )  # fmt: skip


def registered(world: World, digest: str, **fields: str) -> Answer:
    """A file that is not there, of which the digest is known."""
    return world.send("POST", "/api/v1/model", json_={"file": "0" * 32, "sha256": f"sha256:{digest}"} | fields)


def deleted_secret(world: World) -> list[Answer]:
    """Nobody whose token is not for it deletes it, or brings it back."""
    record = world.upload("owner", name="hidden").json
    path = f"/api/v1/model/{record['modelIdentifier']}"
    kept = [world.send("DELETE", f"{path}?version=1", "manager"), world.send("PATCH", path, json_={"tag": "mine"})]
    assert world.send("DELETE", f"{path}?version=1", "owner").status == 200
    return [*kept, world.send("POST", f"{path}/restore", "manager"), world.send("POST", f"{path}/restore", "manager")]


def foreign_receipt(world: World) -> Answer:
    receipt = world.get(f"artifacts/{DIGEST}", "owner").headers["x-hxmlops-receipt"]
    while (mine := world.send("GET", receipt, "owner")).status == 409:
        time.sleep(0.01)
    assert mine.status == 200
    return world.send("GET", receipt)


def foreign_file(world: World) -> list[Answer]:
    """A file of another's under way cannot be seen, added to, removed or registered."""
    path = world.file("owner")
    number = path.rpartition("/")[2]
    more = {**TUS, "Upload-Offset": "1"}
    answers = [
        world.send("HEAD", path, headers=TUS),
        world.send("PATCH", path, body=b"x", type_="application/offset+octet-stream", headers=more),
        world.send("DELETE", path, headers=TUS),
        world.send("POST", "/api/v1/model", json_={"file": number, "name": "churn", "version": "f"}),
    ]
    assert world.send("DELETE", path, "owner", headers=TUS).status == 204
    return answers


def sql(world: World) -> list[Answer]:
    """Names are values; the chain of the audit is whole afterwards."""
    inert(world.upload(name=SQL, version=SQL, tag=SQL, domain=SQL), name=SQL, tag=SQL)
    answers = [world.get(f"model_catalog?{query(name=each)}") for each in ("' OR '1'='1", 'x" OR 1=1 --', "%' --")]
    verdict = world.verdict()
    assert verdict.problem is None
    assert verdict.entries > 10
    return answers


def tar_of(name: str, *, size: int = 0, data: bytes = b"", type_: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size or len(data), type_, link
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512 + 1024)


def at_the_gate(world: World, bomb: bytes) -> Answer:
    """An upload to a server that looks into it. What it says of its size is not believed."""
    folder = world.tokens.parent / "gate"
    folder.mkdir(exist_ok=True)
    with world.start(
        folder, auth="tokens", tokens=world.tokens, trust=world.tokens.parent / "trust", require=("format",)
    ):
        answer = world.upload(data=bomb)
    assert not (folder.parent / "escaped").exists()
    return answer


def disposition(world: World, name: str) -> Answer:
    """The name of what is downloaded stays a name."""
    assert world.datasets is not None
    files = {"datasetFile": b"d", "dataModelFile": b"m"}
    body = form({"name": name, "version": "1"}, files)
    answer = world.datasets.send("POST", "/api/v1/dataset", body=body, type_=FORM)
    path = f"/api/v1/dataset/by_id/{answer.json['datasetIdentifier']}"
    said = world.datasets.send("GET", path).headers["content-disposition"]
    assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9._ +-]*\"; filename\*=UTF-8''[A-Za-z0-9._~%-]*", said), said
    assert quote(name, safe="") in said
    return answer


def link(world: World) -> Answer:
    answer = world.get("model_catalog?limit=1&x=%0d%0aSet-Cookie:%20a%3Db%3E;rel=%22x", "owner")
    assert answer.headers["link"].startswith("</api/v1/model_catalog?")
    assert answer.headers["link"].endswith('>; rel="next"')
    assert answer.headers["link"].count(">") == 1
    return answer


def request_id(world: World) -> Answer:
    answer = world.get("model/999/data", X_Request_ID="<script>alert(1)</script>")
    assert "script" not in answer.headers["x-request-id"]
    return answer


def growth(world: World) -> Answer:
    """A record does not grow without end by what is added to it."""
    world.patch.setattr(registry, "MAX_JSON", 1000)
    path = f"/api/v1/model/{world.upload(version='growing').json['modelIdentifier']}/characteristics"
    grown = [world.send("POST", path, "annotator", json_={name: "x" * 600}) for name in "ab"]
    assert grown[0].status == 200
    return grown[1]


def gzipped(world: World) -> Answer:
    """A bomb of 16 MiB stays the few bytes that came."""
    bomb = gzip.compress(bytes(16 * MIB))
    path = "/api/v1/model?name=churn&version=gzip"
    answer = world.send("POST", path, body=bomb, type_=OCTETS, headers={"Content-Encoding": "gzip"})
    assert answer.json["size"] == len(bomb)
    return answer


def nested(world: World) -> Answer:
    inner = b'--c\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--c--'
    more = b"\r\nContent-Type: multipart/mixed; boundary=c"
    return world.post(part("name", b"churn") + part("version", b"1") + part("files", inner, more) + b"--b--\r\n")


def almost_boundaries(world: World) -> Answer:
    """Bytes of 3 MiB that nearly are a boundary, over and over, hold nobody up."""
    started = time.monotonic()
    answer = world.post(part("name", b"churn") + part("file", b"\r\n--" * (3 * MIB // 4))[:-2])
    assert time.monotonic() - started < 5
    return answer


def json_of(world: World, body: bytes, **more: Any) -> Answer:
    return world.send("POST", "/api/v1/model", body=body, type_="application/json", **more)


def patched(world: World, **headers: str) -> Answer:
    """Bytes for a file of one byte."""
    path = world.file(data=b"", Upload_Length="1")
    fields = TUS | {"Upload-Offset": "0"} | _named(headers)
    return world.send(
        "PATCH", path, body=b"xy"[: 1 + ("Upload-Checksum" not in fields)], type_=TUS_BYTES, headers=fields
    )


TUS_BYTES = "application/offset+octet-stream"


@dataclass(frozen=True)
class Attack:
    name: str
    status: int
    """Of all answers that it gives."""
    attempt: Callable[[World], Answer | list[Answer]]


A = Attack
ATTACKS = [
    # names that would be paths
    A("traversal in the name", 403, lambda w: w.upload(name="../../../../etc/passwd")),
    A(
        "traversal behind a name that is allowed",
        200,
        lambda w: inert(w.upload(name="churn/../secret"), name="churn/../secret"),
    ),
    A("traversal in the version", 200, lambda w: inert(w.upload(version="../../x"), version="../../x")),
    A(
        "traversal in tag and domain",
        200,
        lambda w: inert(w.upload(version="t", tag="../../x", domain="..\\..\\x"), tag="../../x"),
    ),
    A("traversal in a file's name", 200, lambda w: w.upload(version="f", filename="../../../../tmp/escaped")),
    A("traversal in a part's name", 422, lambda w: w.post(form({"name": "churn"}, {"../../file": b"x"}))),
    A("traversal in an alias", 422, lambda w: w.send("PUT", "/api/v1/aliases/..?name=churn", json_={"identifier": 1})),
    A("traversal in an alias, encoded", 404, lambda w: w.get("aliases/..%2f..%2fsecret?name=churn")),
    A(
        "traversal in a version that is asked for",
        404,
        lambda w: w.get("model/1/data?version=..%2f..%2fsecret", "owner"),
    ),
    A(
        "traversal in an alias that is asked for",
        404,
        lambda w: w.get("model/1/data?version=@..%2f..%2fsecret", "owner"),
    ),
    A(
        "traversal in the id of a file",
        404,
        lambda w: w.send("HEAD", "/api/v1/files/..%2f..%2frecords.sqlite", headers=TUS),
    ),
    A(
        "traversal in the id of a file, encoded twice",
        404,
        lambda w: w.send("HEAD", "/api/v1/files/%252e%252e%252frecords.sqlite", headers=TUS),
    ),
    A("traversal in a digest", 404, lambda w: w.get("artifacts/..%2f..%2frecords.sqlite")),
    A("traversal in a digest, with backslashes", 422, lambda w: w.get("artifacts/..\\..\\records.sqlite")),
    A("traversal in an identifier", 404, lambda w: w.get("model/by_id/1%2f..%2f1")),
    A("traversal in the path", 404, lambda w: w.get("../../../../../../etc/passwd")),
    A("traversal below the static files", 404, lambda w: w.send("GET", "/catalogue/static/..%2f..%2fsettings.py", "")),
    A(
        "traversal below the static files, encoded twice",
        404,
        lambda w: w.send("GET", "/catalogue/static/%252e%252e%252fsettings.py", ""),
    ),
    A(
        "traversal below the static files, with backslashes",
        404,
        lambda w: w.send("GET", "/catalogue/static/..\\..\\settings.py", ""),
    ),
    A("NUL in the path", 400, lambda w: w.send("HEAD", "/api/v1/files/a%00.json", headers=TUS)),
    A("NUL in the query", 400, lambda w: w.get("model_catalog?name=churn%00.txt")),
    A("NUL in a name", 422, lambda w: w.upload(name="churn\0secret")),
    # forms
    A("a form of too many parts", 413, lambda w: w.post(b"".join(part(f"n{n}") for n in range(200)) + b"--b--\r\n")),
    A("a part with endless headers", 400, lambda w: w.post(part("file", more=b"\r\nX-A: " + b"a" * 20_000))),
    A("a part with too many headers", 400, lambda w: w.post(part("file", more=b"\r\nX-A: aaaaaaaa" * 5000))),
    A("a form in a form", 422, nested),
    A(
        "a form with an endless boundary",
        400,
        lambda w: w.post(b"x", type_=f"multipart/form-data; boundary={'b' * 10_000}"),
    ),
    A("a form without a boundary", 400, lambda w: w.post(b"x", type_="multipart/form-data")),
    A("a form without an end", 400, lambda w: w.post(part("name") + part("file", b"x" * MIB))),
    A("a form with something in front", 400, lambda w: w.post(b"x" * MIB + form({}, {"file": b"x"}))),
    A("a form with huge texts", 413, lambda w: w.post(part("parameters", b"x" * 9 * MIB) + b"--b--\r\n", chunked=True)),
    A("a form with a file that is too large", 413, lambda w: w.post(form({}, {"file": bytes(5 * MIB)}), chunked=True)),
    A(
        "a form with the name twice",
        400,
        lambda w: w.post(part("name", b"churn") + part("name", b"secret") + b"--b--\r\n"),
    ),
    A("a form with a part that has no name", 400, lambda w: w.post(b"--b\r\nX-A: b\r\n\r\nx\r\n--b--\r\n")),
    A(
        "a form with bytes that are no text",
        400,
        lambda w: w.post(part("name", b"\xff\xfe") + form({}, {"file": b"x"})),
    ),
    A("a form full of almost boundaries", 400, almost_boundaries),
    # slow
    A("a head that trickles", 408, slow_head),
    A("a body that trickles", 408, slow_body),
    A("many connections that say nothing", 404, many_idle),
    # JSON
    A("JSON that is deep", 422, lambda w: json_of(w, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    A("JSON that is deep, in a form", 422, lambda w: w.upload(version="d", parameters='{"a":' * 100_000)),
    A("JSON that is huge", 413, lambda w: json_of(w, b'{"a":"' + b"x" * 9 * MIB + b'"}')),
    A(
        "JSON that is huge, of unknown length",
        413,
        lambda w: json_of(w, b'{"a":"' + b"x" * 9 * MIB + b'"}', chunked=True),
    ),
    A("JSON with a number of a million digits", 422, lambda w: json_of(w, b'{"a":' + b"9" * MIB + b"}")),
    A("JSON with a number that is infinite", 422, lambda w: json_of(w, b'{"a":1e999}')),
    A("JSON with half a character", 422, lambda w: json_of(w, b'{"name":"churn\\ud800"}')),
    A("JSON that is no object", 422, lambda w: json_of(w, b"[" * 5 + b"]" * 5)),
    A("a record that grows without end", 413, growth),
    # HTTP itself, and whoever is in front
    A(
        "two lengths",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Content-Length: 1", "Content-Length: 9", body=b"x")),
    ),
    A(
        "a list of lengths",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Content-Length: 1, 9", body=b"x")),
    ),
    A("a negative length", 400, lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Content-Length: -1"))),
    A(
        "a length with a sign",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Content-Length: +1", body=b"x")),
    ),
    A(
        "a length that is too long",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", f"Content-Length: {'9' * 30}")),
    ),
    A(
        "a length and chunks",
        400,
        lambda w: w.raw(
            request("POST /live HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
        ),
    ),
    A(
        "chunks, and then something else",
        400,
        lambda w: w.raw(request("POST /live HTTP/1.1", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n")),
    ),
    A(
        "chunks with a space before the colon",
        400,
        lambda w: w.raw(request("POST /live HTTP/1.1", "Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    ),
    A(
        "chunks by another name",
        400,
        lambda w: w.raw(request("POST /live HTTP/1.1", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    ),
    A(
        "a chunk whose size is no number",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Transfer-Encoding: chunked", body=b"xyz\r\n")),
    ),
    A(
        "a chunk whose size is too long",
        400,
        lambda w: w.raw(request("POST /api/v1/model HTTP/1.1", "Transfer-Encoding: chunked", body=b"F" * 17 + b"\r\n")),
    ),
    A(
        "a chunk that is longer than it says",
        400,
        lambda w: w.raw(
            request("POST /api/v1/model HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\nxyz\r\n0\r\n\r\n")
        ),
    ),
    A("a chunk with an endless extension", 431, lambda w: endless(w, b"2;a=")),
    A("a trailer without end", 431, lambda w: endless(w, b"2\r\n{}\r\n0\r\nX-A: ")),
    A("a token in a trailer", 401, trailer_token),
    A("a folded header", 400, lambda w: w.raw(request("GET /live HTTP/1.1", "X-A: a", " Content-Length: 5"))),
    A("lines that end in LF alone", 400, lambda w: w.raw(b"GET /live HTTP/1.1\nHost: a\n\n")),
    A("a CR alone in a header", 400, lambda w: w.raw(request("GET /live HTTP/1.1", "X-A: a\rContent-Length: 5"))),
    A("NUL in a header", 400, lambda w: w.raw(request("GET /live HTTP/1.1", "X-A: a\0b"))),
    A("a request in the body of a refused one", 401, smuggled_body),
    A("no host", 400, lambda w: w.raw(b"GET /live HTTP/1.1\r\n\r\n")),
    A("two hosts", 400, lambda w: w.raw(request("GET /live HTTP/1.1", "Host: evil.example"))),
    A("a host with a path", 400, lambda w: w.raw(b"GET /live HTTP/1.1\r\nHost: evil.example/x?\r\n\r\n")),
    A("a host with a user", 400, lambda w: w.raw(b"GET /live HTTP/1.1\r\nHost: a@evil.example\r\n\r\n")),
    A("HTTP/0.9", 400, lambda w: w.raw(b"GET /live\r\n\r\n")),
    A("HTTP/2 by surprise", 400, lambda w: w.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    A("CONNECT", 400, lambda w: w.raw(request("CONNECT 127.0.0.1:22 HTTP/1.1"))),
    A("a method that is not there", 400, lambda w: w.raw(request("BREW /live HTTP/1.1"))),
    A("TRACE", 405, lambda w: w.send("TRACE", "/api/v1/model_catalog", "owner")),
    A("a header that is too long", 431, lambda w: w.get("model_catalog", X_A="a" * 40_000)),
    A("too many headers", 431, lambda w: w.send("GET", "/live", headers=[("X-A", "a")] * 200)),
    A("a URL that is too long", 431, lambda w: w.get("model_catalog?name=" + "a" * 40_000)),
    A("another method by a header, for HEAD", 400, lambda w: pipelined_override(w, "HEAD", "GET")),
    A("HEAD by a header", 400, lambda w: pipelined_override(w, "GET", "HEAD")),
    A(
        "DELETE by a header, elsewhere",
        404,
        lambda w: w.get("model/1/data", "mallory", X_HTTP_Method_Override="DELETE"),
    ),
    # packed
    A("a packed bomb as a model", 200, gzipped),
    A(
        "a packed bomb as JSON",
        422,
        lambda w: json_of(w, gzip.compress(b'{"a":"' + bytes(8 * MIB)), headers={"Content-Encoding": "gzip"}),
    ),
    A(
        "a packed bomb as a form",
        400,
        lambda w: w.post(gzip.compress(form({}, {"file": bytes(8 * MIB)})), headers={"Content-Encoding": "gzip"}),
    ),
    A(
        "a packed tar at the gate",
        422,
        lambda w: at_the_gate(w, gzip.compress(tar_of("model.onnx", data=bytes(16 * MIB)))),
    ),
    A("a tar that says it is larger, at the gate", 422, lambda w: at_the_gate(w, tar_of("model.onnx", size=7 << 30))),
    A("a tar that climbs, at the gate", 422, lambda w: at_the_gate(w, tar_of("../../escaped", data=b"x"))),
    A(
        "a tar with a link, at the gate",
        422,
        lambda w: at_the_gate(w, tar_of("model.onnx", type_=tarfile.SYMTYPE, link="../../escaped")),
    ),
    # names that look like others
    A("letters of another width", 403, lambda w: w.upload(name="\uff43hurn")),
    A("letters of another alphabet", 403, lambda w: w.upload(name="\u0441hurn")),
    A("letters put together", 403, lambda w: w.upload(name="c\u0301hurn")),
    A("letters of another case", 403, lambda w: w.upload(name="Churn")),
    A("text that runs backwards", 422, lambda w: w.upload(name="churn\u202enruhc")),
    A("letters that cannot be seen", 422, lambda w: w.upload(name="churn\u200b")),
    A("a space behind", 403, lambda w: w.upload("exact", name="churn ")),
    A("a name that is a pattern", 403, lambda w: w.upload(name="*")),
    # headers made of names
    A("line ends in a name", 422, lambda w: w.upload(name="churn\r\nSet-Cookie: a=b")),
    A("line ends in a version", 422, lambda w: w.upload(version="1\r\n\r\n<html>")),
    A("a name that would end its quotes", 200, lambda w: disposition(w, 'churn"; filename="evil.html')),
    A(
        "a name that would be another parameter",
        200,
        lambda w: disposition(w, "churn; filename*=UTF-8''evil.html/../\\x"),
    ),
    A("line ends in a link", 200, link),
    A("a request id that is a script", 404, request_id),
    A("a version that is a header", 404, lambda w: w.get("model/1/data?version=1%0d%0aX-A:%20b", "owner")),
    # URLs where none is fetched
    A(
        "a URL for a file",
        404,
        lambda w: untouched(
            w,
            lambda url: w.send(
                "POST", "/api/v1/model", json_={"name": "churn", "version": "u", "file": f"{url}/{'0' * 32}"}
            ),
        ),
    ),
    A(
        "a URL for a file, of this machine",
        422,
        lambda w: w.send(
            "POST", "/api/v1/model", json_={"name": "churn", "version": "u", "file": "file:///etc/passwd"}
        ),
    ),
    A("a URL for a name", 403, lambda w: untouched(w, lambda url: w.upload(name=url))),
    A(
        "a URL in all fields",
        200,
        lambda w: untouched(
            w, lambda url: w.upload(version="url", tag=url, domain=url, parameters=json.dumps({"url": url}))
        ),
    ),
    A(
        "a URL as the request's target",
        404,
        lambda w: untouched(w, lambda url: w.send("GET", f"{url}/model/1", "owner")),
    ),
    A(
        "a URL as the host",
        404,
        lambda w: untouched(
            w, lambda url: w.raw(f"GET /x HTTP/1.1\r\nHost: {url[7:]}\r\nConnection: close\r\n\r\n".encode())[0]
        ),
    ),
    A(
        "a URL for a token's key",
        401,
        lambda w: untouched(
            w, lambda url: jwt(w, "RS256", RSAKey.generate_key(2048), {"alg": "RS256", "jku": url, "x5u": url})
        ),
    ),
    # tokens
    A("no token", 401, lambda w: w.get("model/1/data", "")),
    A("a token for other artifacts", 404, lambda w: w.get("model/1/data")),
    A(
        "a token for other artifacts, by digest",
        404,
        lambda w: equal(w.get(f"artifacts/{DIGEST}"), w.get(f"artifacts/{UNKNOWN}")),
    ),
    A("an expired token", 401, lambda w: bearer(w, w.grant("late", "admin", days=-1))),
    A("a revoked token", 401, revoked),
    A("a token cut off", 401, lambda w: bearer(w, w.token("owner")[:-1])),
    A("a token with more", 401, lambda w: bearer(w, w.token("owner") + "A")),
    A("a token in another case", 401, lambda w: bearer(w, w.token("owner").swapcase())),
    A("a token's digest", 401, lambda w: bearer(w, token_digest(w.token("owner").encode()))),
    A("an empty token", 401, lambda w: bearer(w, "")),
    A(
        "a token in the query",
        401,
        lambda w: w.get(f"model/1/data?access_token={w.token('owner')}&token={w.token('owner')}", ""),
    ),
    A(
        "a token as a password",
        401,
        lambda w: w.send("GET", "/api/v1/model/1/data", "", headers={"Authorization": f"Basic {w.token('owner')}"}),
    ),
    A(
        "two tokens",
        400,
        lambda w: w.send("GET", "/api/v1/model/1/data", "owner", headers={"Authorization": "Bearer x"}),
    ),
    A("two tokens in one", 401, lambda w: bearer(w, f"{w.token('owner')}, Bearer x")),
    A("a token to read that writes", 403, lambda w: w.upload("reader")),
    A("a token to write that deletes", 403, lambda w: w.send("DELETE", "/api/v1/model/1?version=1")),
    A("a token to write that reads the audit", 403, lambda w: w.get("audit")),
    A(
        "a token to annotate that replaces",
        403,
        lambda w: w.send("PUT", "/api/v1/model/1/parameters", "annotator", json_={"a": 1}),
    ),
    A("a JWT that nobody has signed", 401, unsigned),
    A("a JWT signed by the public key", 401, public_key_as_secret),
    A(
        "a JWT by another key of the same name",
        401,
        lambda w: jwt(w, "RS256", RSAKey.generate_key(2048, {"kid": "rsa"})),
    ),
    A("a JWT that has expired", 401, lambda w: jwt(w, exp=int(time.time()) - 100)),
    A("a JWT for another service", 401, lambda w: jwt(w, aud="billing")),
    A("a JWT of another issuer", 401, lambda w: jwt(w, iss="http://evil.example")),
    A("a JWT for the other kind", 403, lambda w: jwt(w, scope="admin:dataset")),
    A("the time that it takes", 401, every_grant_is_compared),
    # the page
    A("script in every field of the page", 404, script),
    A(
        "a form of another site",
        403,
        lambda w: w.browser("owner").form("/catalogue", "/catalogue/logout", {"Sec-Fetch-Site": "cross-site"}),
    ),
    A(
        "a form of another origin",
        403,
        lambda w: w.browser("owner").form(
            "/catalogue", "/catalogue/logout", {"Sec-Fetch-Site": "none", "Origin": "https://evil.example"}
        ),
    ),
    A(
        "a form of an origin that is none",
        403,
        lambda w: w.send(
            "POST",
            "/catalogue/login",
            "",
            body=b"a=b",
            type_="application/x-www-form-urlencoded",
            headers={"Origin": "http://["},
        ),
    ),
    A("a form without its token", 403, lambda w: w.browser("owner").go("POST", "/catalogue/logout", b"form_token=x")),
    A("a form with another's token", 403, stolen_form),
    A("a form that is JSON", 415, lambda w: w.send("POST", "/catalogue/login", "", json_={"token": "x"})),
    A("a form that is huge", 413, lambda w: w.browser().go("POST", "/catalogue/login", b"a=" + b"x" * MIB)),
    A("a login by a link", 200, login_by_link),
    A("a login that leads elsewhere", 303, open_redirect),
    A("a login by guessing", 401, lambda w: w.browser().form("/catalogue/login", "/catalogue/login", token=UNKNOWN)),
    A("the page's cookie at the API", 401, cookie_at_the_api),
    A("a cookie that was altered", 303, altered_cookie),
    A("a session whose token was revoked", 303, session_of_revoked),
    A(
        "the admin's pages for others",
        403,
        lambda w: [
            w.browser("mallory").go("GET", f"/catalogue/{page}")
            for page in ("tokens", "audit", "audit/export", "storage")
        ],
    ),
    A(
        "another's version on the page",
        404,
        lambda w: [
            w.browser("mallory").go("GET", f"/catalogue/{page}")
            for page in ("version/1", "version/1/bytes", "version/1/record", "artifact?name=secret")
        ],
    ),
    # ranges, conditions, caches
    A("a part for the cache", 206, lambda w: cached(w, 206, Range="bytes=0-3")),
    A("a part of other bytes", 200, lambda w: cached(w, 200, Range="bytes=0-3", If_Range=f'"sha256:{UNKNOWN}"')),
    A(
        "a part with a host of its own",
        206,
        lambda w: cached(w, 206, Range="bytes=0-3", X_Forwarded_Host="evil.example"),
    ),
    A(
        "ten thousand ranges",
        431,
        lambda w: w.get(f"artifacts/{DIGEST}", "owner", Range="bytes=" + ",".join(["0-"] * 12_000)),
    ),
    A("thousands of ranges that overlap", 200, lambda w: many_ranges(w, ",".join(["0-"] * 5000))),
    A("a hundred ranges that overlap", 206, lambda w: many_ranges(w, ",".join(f"{n % 9}-" for n in range(100)))),
    A("ranges of huge numbers", 416, lambda w: w.get(f"artifacts/{DIGEST}", "owner", Range=f"bytes={'9' * 90}-")),
    A(
        "conditions that are nonsense",
        412,
        lambda w: w.get(f"artifacts/{DIGEST}", "owner", If_Match='"' * 5000 + "W/,,,"),
    ),
    A(
        "conditions about another's bytes",
        404,
        lambda w: equal(*(w.get(f"artifacts/{each}", If_None_Match="*") for each in (DIGEST, UNKNOWN))),
    ),
    A(
        "an alias's revision that is nonsense",
        400,
        lambda w: w.send("PUT", "/api/v1/aliases/a?name=churn", json_={"identifier": 1}, headers={"If-Match": "W/'"}),
    ),
    # the database, quotas, limits
    A("SQL in names", 404, sql),
    A("SQL in numbers", 422, lambda w: w.get("model_catalog?after=0;DROP%20TABLE%20audit")),
    A("SQL in an alias", 422, lambda w: w.send("PUT", "/api/v1/aliases/a'--?name=churn", json_={"identifier": 1})),
    A(
        "uploads at once beyond the quota",
        507,
        lambda w: parallel(lambda n: w.upload("small", bytes([n]) * 600, version=f"q{n}")),
    ),
    A(
        "files at once beyond the quota",
        507,
        lambda w: parallel(
            lambda _: w.send("POST", "/api/v1/files", "smaller", headers=TUS | {"Upload-Length": "600"})
        ),
    ),
    A(
        "a file larger than any may be",
        413,
        lambda w: w.send("POST", "/api/v1/files", headers=TUS | {"Upload-Length": "9" * 18}),
    ),
    A("more bytes than a file has", 413, patched),
    A(
        "other bytes than the checksum's",
        460,
        lambda w: patched(w, Upload_Checksum="sha1 " + base64.b64encode(bytes(20)).decode()),
    ),
    A("a file whose offset is negative", 400, lambda w: patched(w, Upload_Offset="-1")),
    A("paths of many forms beyond the rate", 429, rate),
    # what belongs to others
    A("the digest of bytes that one does not have", 400, lambda w: equal(declared(w, DIGEST), declared(w, UNKNOWN))),
    A(
        "the digest of bytes that one does not have, and none",
        400,
        lambda w: equal(declared(w, DIGEST, b""), declared(w, UNKNOWN, b"")),
    ),
    A(
        "a file that is gone, by the secret's digest",
        404,
        lambda w: equal(
            registered(w, DIGEST, name="churn", version="x"), registered(w, UNKNOWN, name="churn", version="x")
        ),
    ),
    A(
        "whether there is such a digest, by wrong fields",
        404,
        lambda w: equal(registered(w, DIGEST), registered(w, UNKNOWN)),
    ),
    A(
        "whether there is such a digest, by a foreign name",
        404,
        lambda w: equal(registered(w, DIGEST, name="x", version="x"), registered(w, UNKNOWN, name="x", version="x")),
    ),
    A("another's file under way", 404, foreign_file),
    A(
        "another's version under an own alias",
        404,
        lambda w: w.send("PUT", "/api/v1/aliases/mine?name=churn", json_={"identifier": 1}),
    ),
    A(
        "an alias of another's name",
        404,
        lambda w: w.send("PUT", "/api/v1/aliases/champion?name=secret", json_={"identifier": 1}),
    ),
    A("another's version, deleted and restored", 404, deleted_secret),
    A(
        "another's versions, evidence and record",
        404,
        lambda w: equal(
            *(w.get(f"model/1/{what}") for what in ("versions", "evidence", "data", "data?version=latest"))
        ),
    ),
    A("another's receipt", 404, foreign_receipt),
]


@pytest.fixture(scope="module")
def world(start_in: Any, model_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Model Sharing and Dataset Sharing, with tokens, an issuer, receipts, and a secret in the first."""

    class Start:
        host = model_host

        def __call__(self, folder: Path, **given: Any) -> contextlib.AbstractContextManager[httpx.Client]:
            opened: contextlib.AbstractContextManager[httpx.Client] = start_in(folder, **given)
            return opened

    folder = tmp_path_factory.mktemp("attacked")
    for name in ("models", "datasets", "party"):
        (folder / name).mkdir()
    tokens = folder / "tokens.json"
    tokens.write_text("[]")
    keys.make_keys(folder / "party" / "keys")
    card = keys.make_card(folder / "party" / "keys", party="vendor", domain="software-vendor")
    import_card(folder / "trust", card, card["fingerprint"])
    issuer = Issuer()
    given: dict[str, Any] = {"auth": "tokens", "tokens": tokens, "max_upload_bytes": 4 * MIB}
    named = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    signing = {"signing_key": folder / "party" / "keys" / "signing.pem", "issuer": "software-vendor"}
    with (
        start_in(folder / "models", **given, **named, **signing) as models,
        start_in(folder / "datasets", kind="dataset", **given) as datasets,
    ):
        world = World(models, folder / "models", tokens, Start())
        world.issuer = issuer
        world.datasets = World(datasets, folder / "datasets", tokens, Start())
        world.grant("owner", "admin")
        world.grant("mallory", "read", "write", artifacts=["churn*"])
        world.grant("manager", "admin", artifacts=["churn*"])
        world.grant("exact", "write", artifacts=["churn"])
        world.grant("reader", "read")
        world.grant("annotator", "annotate")
        world.grant("small", "write", quota_bytes=1000)
        world.grant("smaller", "write", quota_bytes=1000)
        assert world.upload("owner", SECRET, name="secret").json["modelIdentifier"] == 1
        world.before = world.state()
        yield world
        time.sleep(1.1)  # what is only noted is on record after a second
        assert world.verdict().problem is None
    issuer.stop()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused(world: World, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    world.patch = monkeypatch
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        world.trap = trap
        answers = attack.attempt(world)
    monkeypatch.undo()
    listed = answers if isinstance(answers, list) else [answers]
    assert [answer.status for answer in listed] == [attack.status] * len(listed), listed
    before, world.before = world.before, world.state()
    assert world.before == before
