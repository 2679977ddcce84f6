"""OpenID Connect: tokens of a real small issuer, whose keys rotate, that is away at times; and forged ones."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from issuer import ANY, AUDIENCE, KEYS, NEW_KEY, RSA_KEY, Issuer
from joserfc import jws
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import CompactSignature
from structlog.testing import capture_logs

from hxmlops_sharing import oidc
from hxmlops_sharing.access import Caller
from hxmlops_sharing.oidc import Oidc
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.settings import Settings, SettingsError, read_settings

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # this file signs what is obsolete


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.stop()


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(oidc, "time", clock)
    return clock


def settings_of(issuer: Issuer, **more: Any) -> Settings:
    return read_settings(
        **{"kind": "model", "database": "none", "store": "none", "oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        | more
    )


def caller(known: Oidc, token: str) -> Caller:
    return asyncio.run(known.authenticate(token))


def refused(known: Oidc, token: str, status: int = 401) -> str:
    """The detail of a refusal, which never quotes the token."""
    with capture_logs() as logs, pytest.raises(Problem) as problem:
        caller(known, token)
    said = f"{problem.value.detail} {problem.value.headers} {logs}"
    assert problem.value.status_code == status, said
    assert said.isascii()
    assert said.isprintable()
    for part in [token, *token.split(".")]:
        assert len(part) < 8 or part not in said
    return str(problem.value.detail)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_each_asymmetric_algorithm_is_accepted(issuer: Issuer, algorithm: str) -> None:
    token = issuer.token(algorithm, scope="read:model write:model openid")
    assert caller(Oidc(settings_of(issuer)), token) == Caller("mno", frozenset({"read", "write"}), ("*",))
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_the_newer_name_of_eddsa(issuer: Issuer) -> None:
    assert caller(Oidc(settings_of(issuer)), issuer.token("Ed25519", KEYS["EdDSA"])).client == "mno"
    issuer.keys = [dict(KEYS["EdDSA"].as_dict(private=False)) | {"alg": "Ed25519"}]
    assert caller(Oidc(settings_of(issuer)), issuer.token("Ed25519", KEYS["EdDSA"])).client == "mno"


@pytest.mark.parametrize(
    ("kind", "claims", "scopes"),
    [
        ("model", {"scope": "read:model"}, {"read"}),
        ("model", {"scope": "write:model annotate:model"}, {"write", "annotate"}),
        ("model", {"scope": None, "scp": ["read:model", "admin:model"]}, {"read", "admin"}),
        ("model", {"scope": None, "scp": "read:model"}, {"read"}),
        ("model", {"scope": "read:dataset admin:dataset admin read READ:MODEL read:model:x"}, set()),
        ("model", {"scope": None}, set()),
        ("dataset", {"scope": "read:dataset read:model write:model"}, {"read"}),
    ],
)
def test_scopes_are_those_of_this_kind(issuer: Issuer, kind: str, claims: dict[str, Any], scopes: set[str]) -> None:
    assert caller(Oidc(settings_of(issuer, kind=kind)), issuer.token(**claims)).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({"client_id": "a", "azp": "b", "sub": "c"}, "a"),
        ({"client_id": None, "azp": "b", "sub": "c"}, "b"),
        ({"client_id": None, "sub": "c"}, "c"),
    ],
)
def test_the_client_is_who_the_token_was_given_to(issuer: Issuer, claims: dict[str, Any], client: str) -> None:
    assert caller(Oidc(settings_of(issuer)), issuer.token(**claims)).client == client


def test_a_claim_narrows_the_artifacts(issuer: Issuer) -> None:
    narrow = caller(Oidc(settings_of(issuer)), issuer.token(hxmlops_artifacts=["churn*"]))
    assert (narrow.sees("churn-1"), narrow.sees("other")) == (True, False)
    assert not caller(Oidc(settings_of(issuer)), issuer.token(hxmlops_artifacts=[])).sees("churn")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://elsewhere.example"}, "the token's claim 'iss' is not one that this server accepts"),
        ({"aud": "another"}, "the token's claim 'aud' is not one that this server accepts"),
        ({"aud": ["another", "third"]}, "the token's claim 'aud' is not one that this server accepts"),
        ({"aud": []}, "the token's claim 'aud' is not one that this server accepts"),
        ({"aud": {AUDIENCE: 1}}, "the token's claim 'aud' is not one that this server accepts"),
        ({"aud": AUDIENCE + "\n"}, "the token's claim 'aud' is not one that this server accepts"),
        ({"exp": 1}, "the token has expired"),
        ({"exp": int(time.time()) - 31}, "the token has expired"),
        ({"exp": "9999999999"}, "the token's claim 'exp' is not one that this server accepts"),
        ({"exp": True}, "the token's claim 'exp' is not one that this server accepts"),
        ({"exp": float("nan")}, "the token's claim 'exp' is not one that this server accepts"),
        ({"nbf": int(time.time()) + 86_400}, "the token's claim 'nbf' is not one that this server accepts"),
        ({"iat": int(time.time()) + 86_400}, "the token's claim 'iat' is not one that this server accepts"),
        *(({name: None}, "the token lacks one of the claims iss, aud, exp") for name in ("iss", "aud", "exp")),
        ({"client_id": None}, "the token names no client: it needs client_id, azp or sub"),
        ({"client_id": ""}, "the token names no client: it needs client_id, azp or sub"),
        ({"client_id": "a\r\nX-Evil: 1"}, "the token names no client: it needs client_id, azp or sub"),
        ({"client_id": "x" * 256}, "the token names no client: it needs client_id, azp or sub"),
        ({"client_id": ["mno"], "sub": "mno"}, "the token names no client: it needs client_id, azp or sub"),
        ({"hxmlops_artifacts": "*"}, "the token's claims scope, scp and hxmlops_artifacts should be lists of text"),
        ({"hxmlops_artifacts": [1]}, "the token's claims scope, scp and hxmlops_artifacts should be lists of text"),
        ({"hxmlops_artifacts": ["x"] * 101}, "the token's claim hxmlops_artifacts is too long"),
        ({"hxmlops_artifacts": None, "scp": {"read:model": 1}}, "the token's claims scope, scp and "),
    ],
)
def test_claims_that_do_not_hold_here(issuer: Issuer, claims: dict[str, Any], reason: str) -> None:
    assert refused(Oidc(settings_of(issuer)), issuer.token(**claims)).startswith(reason)


def test_a_little_leeway_for_clocks(issuer: Issuer) -> None:
    now = int(time.time())
    known = Oidc(settings_of(issuer))
    assert caller(known, issuer.token(exp=now - 20, nbf=now + 20, iat=now + 20)).client == "mno"
    assert caller(known, issuer.token(aud=["x", AUDIENCE])).client == "mno"


def unsigned(issuer: Issuer, **header: Any) -> str:
    parts = [{"alg": "none", "typ": "JWT"} | header, issuer.claims(scope="admin:model")]
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts) + "."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "RS1", "ES384", 5, None, ["RS256"], {}])
def test_algorithms_that_prove_nothing(issuer: Issuer, algorithm: Any) -> None:
    detail = refused(Oidc(settings_of(issuer)), unsigned(issuer, alg=algorithm))
    assert detail in (
        "the token's algorithm is none of RS256, PS256, ES256, EdDSA, Ed25519",
        "the token is no signed JWT",
    )
    assert issuer.asked == []


@pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
def test_a_public_key_is_no_secret(issuer: Issuer, form: str) -> None:
    """The classic confusion: HMAC with what everyone can read."""
    public = RSA_KEY.public_key
    assert isinstance(public, rsa.RSAPublicKey)
    encoding = serialization.Encoding.PEM if form == "pem" else serialization.Encoding.DER
    secrets = {
        "jwk": json.dumps(issuer.keys[0]).encode(),
        "n": str(issuer.keys[0]["n"]).encode(),
    }
    shared = secrets.get(form, public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    for algorithm in ("HS256", "HS384", "HS512"):
        forged = _hmac(issuer, shared, algorithm)
        assert "algorithm is none of" in refused(Oidc(settings_of(issuer)), forged)


def _hmac(issuer: Issuer, secret: bytes, algorithm: str) -> str:
    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    header = {"alg": algorithm, "kid": "rsa"}
    signed = ".".join(text(json.dumps(each).encode()) for each in (header, issuer.claims(scope="admin:model")))
    return f"{signed}.{text(hmac.digest(secret, signed.encode(), getattr(hashlib, algorithm.replace('HS', 'sha'))))}"


def test_symmetric_keys_and_keys_for_other_uses_are_not_taken(issuer: Issuer) -> None:
    shared = OctKey.generate_key(256, {"kid": "rsa"})
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB" * 40, "e": "AQAB"}
    public = dict(RSA_KEY.as_dict(private=False))
    issuer.keys = [
        dict(shared.as_dict(private=True)), public | {"use": "enc"}, public | {"alg": "RSA-OAEP"}, weak,
        {"kty": "EC", "kid": "rsa", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": 5}, {},
        public | {"key_ops": ["encrypt"]},
    ]  # fmt: skip
    detail = refused(Oidc(settings_of(issuer)), issuer.token())
    assert detail == "no key of the issuer has signed the token"


def test_keys_of_one_name_are_told_apart_by_kind(issuer: Issuer) -> None:
    same = [dict(key.as_dict(private=False)) | {"kid": "same"} for key in KEYS.values()]
    issuer.keys = [each for each in same for _ in (1, 2)]
    known = Oidc(settings_of(issuer))
    for algorithm, key in KEYS.items():
        assert caller(known, issuer.token(algorithm, key, {"alg": algorithm, "kid": "same"})).client == "mno"
        assert caller(known, issuer.token(algorithm, key, {"alg": algorithm})).client == "mno"


def test_a_key_for_one_algorithm_is_not_used_for_another(issuer: Issuer) -> None:
    issuer.keys = [dict(RSA_KEY.as_dict(private=False)) | {"alg": "PS256"}]
    assert caller(Oidc(settings_of(issuer)), issuer.token("PS256", RSA_KEY)).client == "mno"
    assert "no key" in refused(Oidc(settings_of(issuer)), issuer.token("RS256"))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../etc/passwd"},
        {"kid": "rsa' OR '1'='1"},
        {"kid": "ec"},
        {"kid": ""},
        {"kid": "rsa\n"},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/keys"},
        {"jwk": "own"},
    ],
)
def test_a_stranger_cannot_choose_the_key(issuer: Issuer, header: dict[str, Any]) -> None:
    stranger = RSAKey.import_key(NEW_KEY.as_dict(private=True) | {"kid": "rsa"})
    if header.get("jwk") == "own":
        header = {"jwk": dict(stranger.as_dict(private=False))}
    token = issuer.token(key=stranger, header={"alg": "RS256", "kid": "rsa"} | header)
    assert refused(Oidc(settings_of(issuer)), token) == "no key of the issuer has signed the token"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda token: token[:-4], "no key of the issuer"),
        (lambda token: token.rpartition(".")[0] + ".", "no key of the issuer"),
        (lambda token: token + "AAAA", "no key of the issuer"),
        (lambda token: token + "=", "no key of the issuer"),
        (lambda token: token.replace(".", "..", 1), "the token is no signed JWT"),
        (lambda token: token + ".x.y", "the token is no signed JWT"),
        (lambda _: "a.b.c", "the token is no signed JWT"),
        (lambda _: "..", "the token is no signed JWT"),
        (lambda _: "e30.e30.", "the token is no signed JWT"),
        (lambda _: "é.é.é", "the token is no signed JWT"),
        (lambda _: "\ud800.a.b", "the token is no signed JWT"),
        (lambda _: base64.urlsafe_b64encode(b"[" * 1500).decode() + ".e30.x", "the token is no signed JWT"),
        (lambda _: base64.urlsafe_b64encode(b'["alg"]').decode().rstrip("=") + ".e30.x", "the token is no signed"),
        (lambda token: token + "A" * 20_000, "the token is too long"),
        (lambda _: "." * 20_000, "the token is too long"),
    ],
)
def test_tokens_that_were_altered_or_are_none(issuer: Issuer, change: Any, reason: str) -> None:
    assert refused(Oidc(settings_of(issuer)), change(issuer.token())).startswith(reason)


def test_claims_of_another_token_do_not_fit_a_signature(issuer: Issuer) -> None:
    header, _, signature = issuer.token().split(".")
    _, claims, _ = issuer.token(scope="admin:model").split(".")
    assert "no key" in refused(Oidc(settings_of(issuer)), f"{header}.{claims}.{signature}")


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": False}])
def test_extensions_are_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    detail = refused(Oidc(settings_of(issuer)), unsigned(issuer, alg="RS256", **header))
    assert detail in ("the token has extensions that this server does not know", "the token is no signed JWT")


def test_a_payload_that_is_no_object(issuer: Issuer) -> None:
    for payload in (b"[]", b"{", b"[" * 5000, b"\xff", b"null"):
        token = jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, payload, RSA_KEY, registry=ANY)
        assert refused(Oidc(settings_of(issuer)), token) == "the token's claims are no JSON object"


def test_a_new_key_is_found_at_once_but_the_issuer_is_not_flooded(issuer: Issuer, clock: Clock) -> None:
    known = Oidc(settings_of(issuer))
    caller(known, issuer.token())
    issuer.keys = [dict(NEW_KEY.as_dict(private=False))]
    asked = len(issuer.asked)
    clock.now += 59
    for _ in range(20):
        refused(known, issuer.token(key=NEW_KEY))
        refused(known, issuer.token(key=NEW_KEY, header={"alg": "RS256", "kid": "made up"}))
    assert len(issuer.asked) == asked
    clock.now += 2
    assert caller(known, issuer.token(key=NEW_KEY)).client == "mno"
    assert len(issuer.asked) == asked + 2
    assert "no key" in refused(known, issuer.token())  # the old key is gone with the new set


def test_a_good_token_is_remembered_until_it_expires_or_the_keys_change(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Oidc(settings_of(issuer))
    examined: list[str] = []
    parse = oidc._parsed

    def parsed(token: str) -> CompactSignature:
        examined.append(token)
        return parse(token)

    monkeypatch.setattr(oidc, "_parsed", parsed)
    token, other = issuer.token(), issuer.token("ES256", scope="write:model")
    for each in (token, other, token, other):
        assert caller(known, each).scopes == ({"read"} if each == token else {"write"})
    assert examined == [token, other]
    clock.now += 601
    caller(known, token)
    assert examined == [token, other, token]
    clock.ahead = 61
    caller(known, token)  # examined again, and good by the leeway
    assert len(examined) == 4
    for _ in range(2):
        refused(known, token[:-8] + "AAAAAAAA")  # what is refused is not remembered
    assert len(examined) == 6
    monkeypatch.setattr(oidc, "MAX_REMEMBERED", 3)
    for number in range(10):
        caller(known, issuer.token("EdDSA", client_id=str(number)))
        assert len(known._remembered) <= 3


def test_a_withdrawn_key_counts_for_ten_minutes_at_most(issuer: Issuer, clock: Clock) -> None:
    known = Oidc(settings_of(issuer))
    caller(known, issuer.token())
    issuer.keys = [dict(KEYS["ES256"].as_dict(private=False))]
    clock.now += 599
    caller(known, issuer.token())
    clock.now += 2
    assert "no key" in refused(known, issuer.token())


def test_the_issuer_away_and_back(issuer: Issuer, clock: Clock) -> None:
    known = Oidc(settings_of(issuer))
    token = issuer.token()
    caller(known, token)
    issuer.stop()
    clock.now += 601
    assert caller(known, token).client == "mno"  # by keys from before
    unknown = issuer.token(key=NEW_KEY)
    assert refused(known, unknown, 503) == "the issuer's keys cannot be had: try again later"
    clock.now += 3000
    assert refused(known, token, 503) == "the issuer's keys cannot be had: try again later"
    back = Issuer(issuer.port)
    try:
        assert refused(known, token, 503)  # asked a moment ago
        assert back.asked == []
        clock.now += 11
        assert caller(known, token).client == "mno"
    finally:
        back.stop()


def test_an_issuer_that_was_never_there(issuer: Issuer) -> None:
    issuer.stop()
    known = Oidc(settings_of(issuer))
    with pytest.raises(Problem) as problem:
        caller(known, issuer.token())
    assert problem.value.status_code == 503
    assert problem.value.headers == {"Retry-After": "10"}


def test_a_silent_issuer_holds_nobody_up_for_long(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "TIMEOUT_S", 0.2)
    token = issuer.token()
    issuer.stop()
    with socket.create_server(("127.0.0.1", issuer.port)):
        started = time.perf_counter()
        refused(Oidc(settings_of(issuer)), token, 503)
        assert time.perf_counter() - started < 2


def test_who_leaves_while_keys_are_fetched_does_not_lock_out_others(issuer: Issuer, clock: Clock) -> None:
    known = Oidc(settings_of(issuer))
    token = issuer.token()

    async def leave() -> None:
        request = asyncio.create_task(known.authenticate(token))
        while not known._asking.locked():
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(leave())
    assert refused(known, token, 503)
    clock.now += 11
    assert caller(known, token).client == "mno"


def test_requests_at_once_ask_once(issuer: Issuer) -> None:
    known = Oidc(settings_of(issuer))
    token = issuer.token()

    async def many() -> list[Caller]:
        return await asyncio.gather(*(known.authenticate(token) for _ in range(50)))

    assert {each.client for each in asyncio.run(many())} == {"mno"}
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/.well-known/openid-configuration", 500, b"{}"),
        ("/.well-known/openid-configuration", 302, b"{}"),
        ("/.well-known/openid-configuration", 200, b'{"issuer": "https://elsewhere.example", "jwks_uri": "https://a"}'),
        ("/.well-known/openid-configuration", 200, b"[]"),
        ("own", 200, b'"http://elsewhere.example/keys"'),
        ("own", 200, b'"file:///etc/passwd"'),
        ("own", 200, b"7"),
        ("own", 200, b'"https://["'),
        ("own", 200, b'"https://:x/"'),
        ("/keys", 200, b"not json"),
        ("/keys", 200, b'{"keys": 5}'),
        ("/keys", 200, b"[" * 100_000),
        ("/keys", 200, b" " * ((1 << 20) + 1)),
    ],
)
def test_an_issuer_that_answers_nonsense(issuer: Issuer, path: str, status: int, body: bytes) -> None:
    if path == "own":
        path = "/.well-known/openid-configuration"
        body = json.dumps({"issuer": issuer.url, "jwks_uri": json.loads(body)}).encode()
    issuer.answers[path] = (status, body)
    refused(Oidc(settings_of(issuer)), issuer.token(), 503)


def test_keys_from_a_url_or_a_file_instead_of_discovery(issuer: Issuer, tmp_path: Path, clock: Clock) -> None:
    assert caller(Oidc(settings_of(issuer, oidc_jwks=f"{issuer.url}/keys")), issuer.token()).client == "mno"
    assert issuer.asked == ["/keys"]
    file = tmp_path / "keys.json"
    known = Oidc(settings_of(issuer, oidc_jwks=str(file)))
    refused(known, issuer.token(), 503)
    file.write_text("{")
    clock.now += 11
    refused(known, issuer.token(), 503)
    file.write_text(json.dumps({"keys": issuer.keys}))
    clock.now += 11
    assert caller(known, issuer.token()).client == "mno"
    assert issuer.asked == ["/keys"]


@pytest.mark.parametrize("where", ["oidc_issuer", "oidc_jwks"])
def test_keys_without_tls_from_elsewhere_are_not_even_asked_for(issuer: Issuer, where: str) -> None:
    with pytest.raises(SettingsError, match="keys that come without TLS can be forged: use https"):
        Oidc(settings_of(issuer, **{where: "http://issuer.example"}))
    Oidc(settings_of(issuer, **{where: "https://issuer.example"}))
