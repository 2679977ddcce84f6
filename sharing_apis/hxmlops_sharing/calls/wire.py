"""The wire: how bytes travel and time passes. The one thing in which the two clients differ."""

import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import httpx2 as httpx

from hxmlops_sharing.calls.errors import SharingError

BLOCK = 1 << 20
CONNECT_S = 10
ANSWER_S = 300
"""A large upload is answered when it is on disk."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Body:
    """What a request sends; `sent` is told of each block when it is on its way."""

    blocks: Iterator[bytes]
    length: int
    media_type: str
    sent: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Reply:
    """The head of an answer, and its body as it comes, not decoded; `receipt` is what the API itself named, if any."""

    status: int
    headers: Mapping[str, str]
    blocks: AsyncIterator[bytes]
    receipt: str = ""


class Wire(Protocol):
    def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, at_home: bool, read_s: float
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request; redirects are not followed. `at_home`: to the API itself, not where it redirects to.

        Raises httpx's TransportError, also while the body is read.
        """

    async def sleep(self, seconds: float) -> None: ...

    async def work[T](self, function: Callable[[], T]) -> T:
        """Do what takes time on this machine: read, write, hash. Always done when this returns or raises."""


@dataclass(frozen=True)
class Peer:
    """One sharing API and how to connect to it."""

    url: str
    token: str
    token_file: Path | None
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def options(self, *, at_home: bool) -> dict[str, Any]:
        """Arguments of httpx's clients. SharingError when the files for TLS are of no use.

        Where the API redirects to is another party: our certificate is not for it.
        """
        try:
            verify: ssl.SSLContext | bool = False  # reading the system's certificates takes time: for https alone
            if self.url.startswith("https:") or not at_home:
                verify = ssl.create_default_context(cafile=self.ca)
                if self.certificate and at_home:
                    verify.load_cert_chain(self.certificate, self.key, _no_password)
        except (OSError, ValueError) as error:
            files = " ".join(str(file) for file in (self.ca, self.certificate, self.key) if file)
            raise SharingError(f"cannot talk to {self.url}: {error}: check the url and its CA file {files}") from None
        return {
            "verify": verify,
            "headers": {"User-Agent": "hxmlops-sharing", "Accept-Encoding": "identity"},
            "trust_env": urlsplit(self.url).hostname not in LOOPBACK,  # a company's proxy is for others
        }


def timeout_of(read_s: float) -> httpx.Timeout:
    return httpx.Timeout(60, connect=CONNECT_S, read=read_s)


def headers_of(headers: Mapping[str, str], body: Body | None) -> dict[str, str]:
    """The headers of a request with those that describe its body."""
    described = {} if body is None else {"Content-Length": str(body.length), "Content-Type": body.media_type}
    return {**headers, **described}


def read_token(path: Path, url: str) -> str:
    """The token in a file. SharingError when there is none."""
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise SharingError(f"no token for {url}: {path}: {error.strerror}") from None
    if not re.fullmatch(rb"[!-~]+", token):
        raise SharingError(f"no token for {url}: {path} holds none: ask the owner of {url} for one and put it there")
    return token.decode()


def peer_of(url: str, token_file: Path | None, ca: Path | None, certificate: Path | None, key: Path | None) -> Peer:
    """SharingError when the url is none, or the token cannot be read."""
    root = url.rstrip("/").removesuffix("/api/v1")
    try:
        parts = urlsplit(root)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and root.isprintable() and " " not in root
        usable = usable and not (parts.query or parts.fragment or parts.username or parts.password)
        httpx.URL(root)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise SharingError(f"cannot talk to {_without_secrets(url)}: give a url like https://host:8080")
    token = "" if token_file is None else read_token(token_file, url)
    return Peer(root, token, token_file, ca, certificate, key)


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]


def _no_password() -> NoReturn:
    raise ValueError("the key has a password: give one without")
