"""OpenID Connect: access tokens (JWT, RFC 9068) of one issuer, checked against the keys that it publishes.

Keys are fetched when first needed, again when they are FRESH_S old, and when a token names one that is not known, so
that rotated keys are found at once; but never more often than every ASK_AGAIN_S. While the issuer is away, its last
keys count for STALE_S.
"""

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import structlog
from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from hxmlops_sharing.access import Caller, unauthorized
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.settings import Settings, SettingsError, is_loopback

ALGORITHMS = {"RS256": "RSA", "PS256": "RSA", "ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
"""Of signatures, and the keys they need: none where a secret of both sides signs, or nothing does."""
LEEWAY_S = 30
MAX_TOKEN = 16_384
MAX_KEYS_BYTES = 1 << 20
MAX_TEXT = 255
MAX_PATTERNS = 100
RSA_CHARACTERS = 342
"""Of the shortest modulus: 2048 bits in base64url."""
MAX_REMEMBERED = 1000
FRESH_S = 600.0
STALE_S = 3600.0
ASK_AGAIN_S = 60.0
RETRY_S = 10.0
TIMEOUT_S = 5.0

ARTIFACTS = "hxmlops_artifacts"
"""The claim that narrows a token to artifact names, a list of globs."""

log = structlog.get_logger("hxmlops_sharing")


class _Unavailable(Exception):
    """The issuer's keys cannot be had: why."""


class _Registry(JWSRegistry):
    """Only ALGORITHMS, and those without joserfc's warning that EdDSA has a newer name."""

    max_header_length = 4096  # some issuers put their certificates there
    max_payload_length = MAX_TOKEN

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


_REGISTRY = _Registry()


class Oidc:
    """Knows callers by the tokens of `oidc_issuer` for `oidc_audience`. SettingsError when its keys could be forged."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer
        self._kind = settings.kind
        self._jwks = settings.oidc_jwks
        self._claims = JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": settings.oidc_issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
        )
        self._keys: list[Key] = []
        self._remembered: dict[bytes, tuple[Caller, float]] = {}
        """Tokens that were found good, by their SHA-256, for as long as the keys are fresh."""
        self._fetched_at = self._asked_at = float("-inf")
        self._failed = False
        self._asking = asyncio.Lock()
        if not self._in_file and not _is_safe(self._jwks or self._issuer):
            raise SettingsError(f"{self._jwks or self._issuer}: keys that come without TLS can be forged: use https")

    async def authenticate(self, token: str) -> Caller:
        """Who holds this token. Problem 401, or 503 when the issuer's keys cannot be had."""
        if len(token) > MAX_TOKEN:
            raise unauthorized("the token is too long")
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        caller, expires = self._remembered.get(digest, (None, 0.0))
        if caller is not None and time.time() < expires and time.monotonic() - self._fetched_at <= FRESH_S:
            return caller
        caller, expires = await self._examine(token)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = caller, expires
        return caller

    async def _examine(self, token: str) -> tuple[Caller, float]:
        """Who holds this token, and until when (seconds since 1970)."""
        signed = _parsed(token)
        claims = await self._verified(signed)
        try:
            self._claims.validate(claims)
        except ExpiredTokenError:
            raise unauthorized("the token has expired") from None
        except MissingClaimError:
            raise unauthorized("the token lacks one of the claims iss, aud, exp") from None
        except InvalidClaimError as error:
            raise unauthorized(f"the token's claim '{error.claim}' is not one that this server accepts") from None
        return Caller(_client(claims), self._scopes(claims), _artifacts(claims)), claims["exp"]

    async def _verified(self, signed: CompactSignature) -> dict[str, Any]:
        """The claims of a token that one of the issuer's keys has signed."""
        for key in await self._candidates(signed):
            try:
                genuine = jws.validate_compact(signed, key, registry=_REGISTRY)
            except (JoseError, ValueError):
                continue
            if genuine:
                return _object(signed.payload)
        raise unauthorized("no key of the issuer has signed the token")

    async def _candidates(self, signed: CompactSignature) -> list[Key]:
        """The keys that can have signed a token: of its algorithm, and by name if it names one."""
        header = signed.headers()

        def known() -> list[Key]:
            keys = [key for key in self._keys if _signs(key, header["alg"])]
            return [key for key in keys if key.kid == header["kid"]] if "kid" in header else keys

        def enough() -> bool:
            return bool(known()) and time.monotonic() - self._fetched_at <= FRESH_S

        if not enough() and not (known() and self._asking.locked()):
            async with self._asking:
                if not enough() and self._may_ask():  # another request may have asked meanwhile
                    await self._ask()
        if time.monotonic() - self._fetched_at > STALE_S or (self._failed and not known()):
            raise Problem(
                503,
                "issuer-unavailable",
                "the issuer's keys cannot be had: try again later",
                {"Retry-After": str(int(RETRY_S))},
            )
        return known()

    def _may_ask(self) -> bool:
        return time.monotonic() - self._asked_at >= (RETRY_S if self._failed else ASK_AGAIN_S)

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._failed = True  # until it has succeeded: the request that asks may be cancelled
        try:
            self._keys = _usable(await self._fetch_keys())
            self._remembered.clear()  # a key may be gone
            self._fetched_at = time.monotonic()
            self._failed = False
        except _Unavailable as error:
            log.error("oidc_keys", issuer=self._issuer, reason=str(error))

    @property
    def _in_file(self) -> bool:
        return bool(self._jwks) and not self._jwks.startswith(("https://", "http://"))

    async def _fetch_keys(self) -> Any:
        if self._in_file:
            try:
                return json.loads(await asyncio.to_thread(Path(self._jwks).read_bytes))
            except OSError as error:
                raise _Unavailable(f"{self._jwks}: {error.strerror}") from None
            except (ValueError, RecursionError):
                raise _Unavailable(f"{self._jwks}: not JSON") from None
        if self._jwks:
            return await _fetch(self._jwks)
        about = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await _fetch(about)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _Unavailable(f"{about} is about another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not _is_safe(url):
            raise _Unavailable(f"{about} names no jwks_uri with https")
        return await _fetch(url)

    def _scopes(self, claims: dict[str, Any]) -> frozenset[str]:
        """`read:model` and the like, of this server's kind, in `scope` or `scp`; others are not for this server."""
        words: set[str] = set()
        for name in ("scope", "scp"):
            said = claims.get(name, [])
            words.update(said.split(" ") if isinstance(said, str) else (each for each in _list(said)))
        return frozenset(scope for scope in ("read", "annotate", "write", "admin") if f"{scope}:{self._kind}" in words)


def _parsed(token: str) -> CompactSignature:
    """A token's parts, nothing verified."""
    try:
        signed = jws.extract_compact(token.encode(), registry=_REGISTRY)
        header = signed.headers()
        if not all(isinstance(header.get(name, ""), str) for name in ("alg", "kid")):
            raise ValueError
    except (JoseError, ValueError, AttributeError, RecursionError):
        raise unauthorized("the token is no signed JWT") from None
    if header["alg"] not in ALGORITHMS:
        raise unauthorized(f"the token's algorithm is none of {', '.join(ALGORITHMS)}")
    if "crit" in header:
        raise unauthorized("the token has extensions that this server does not know")
    return signed


def _object(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise unauthorized("the token's claims are no JSON object")
    return claims


def _client(claims: dict[str, Any]) -> str:
    for name in ("client_id", "azp", "sub"):
        if name in claims:
            client = claims[name]
            if not isinstance(client, str) or not 0 < len(client) <= MAX_TEXT or not client.isprintable():
                break
            return client
    raise unauthorized("the token names no client: it needs client_id, azp or sub")


def _artifacts(claims: dict[str, Any]) -> tuple[str, ...]:
    if ARTIFACTS not in claims:
        return ("*",)
    patterns = _list(claims[ARTIFACTS])
    if len(patterns) > MAX_PATTERNS or any(len(pattern) > MAX_TEXT for pattern in patterns):
        raise unauthorized(f"the token's claim {ARTIFACTS} is too long")
    return tuple(patterns)


def _list(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise unauthorized(f"the token's claims scope, scp and {ARTIFACTS} should be lists of text")
    return value


def _signs(key: Key, algorithm: str) -> bool:
    """Whether a key is of the kind that an algorithm needs, and meant for it."""
    kind = "RSA" if isinstance(key, RSAKey) else key.curve_name if isinstance(key, ECKey | OKPKey) else ""
    return kind == ALGORITHMS[algorithm] and key.alg in (None, algorithm)


def _usable(document: Any) -> list[Key]:
    """The public keys for signatures in a JWK set; those of other kinds and uses are left out."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _Unavailable("what the issuer has for keys is no JWK set")
    return [key for each in listed if (key := _key(each)) is not None]


def _key(value: Any) -> Key | None:
    if not isinstance(value, dict) or value.get("use", "sig") != "sig" or value.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if value["kty"] == "RSA" and len(str(value.get("n")).rstrip("=")) < RSA_CHARACTERS:
        return None
    try:
        return JWKRegistry.import_key({name: part for name, part in value.items() if name in _PUBLIC})
    except (JoseError, ValueError, TypeError, KeyError):
        return None


_PUBLIC = ("kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y")


async def _fetch(url: str) -> Any:
    """A JSON document of limited size. _Unavailable."""
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            await asyncio.to_thread(_http_client, url) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise _Unavailable(f"{url} answered {answer.status_code}")
            body = bytearray()
            async for block in answer.aiter_bytes():
                body += block
                if len(body) > MAX_KEYS_BYTES:
                    raise _Unavailable(f"{url} answered more than {MAX_KEYS_BYTES} bytes")
            return json.loads(bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        raise _Unavailable(f"{url} cannot be reached ({type(error).__name__})") from None
    except (ValueError, RecursionError):
        raise _Unavailable(f"{url} answered no JSON") from None


def _http_client(url: str) -> httpx.AsyncClient:
    """Made in a thread, for reading the system's certificates takes a while."""
    parts = urlsplit(url)
    return httpx.AsyncClient(
        timeout=TIMEOUT_S,
        verify=parts.scheme == "https",
        trust_env=not is_loopback(parts.hostname or ""),  # a company's proxy is for others
    )


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can change what it answers: https, or this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
