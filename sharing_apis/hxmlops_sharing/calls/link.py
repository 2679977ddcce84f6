"""One API over a wire: requests with the token, redirects within bounds, answers within bounds, errors in one line."""

import email.utils
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2 as httpx

from hxmlops_evidence.errors import one_line
from hxmlops_sharing.calls import patience
from hxmlops_sharing.calls.errors import SharingError
from hxmlops_sharing.calls.patience import Pace, Patience
from hxmlops_sharing.calls.wire import ANSWER_S, Body, Peer, Reply, Wire

MAX_JSON = 256 << 20
MAX_PROBLEM = 64 << 10
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 502, 503, 504)

type Query = Mapping[str, Any] | None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    value: Any
    tries: int


class Busy(Exception):
    """The server wants us to come back later; `refusal` is what to raise when we do not."""

    def __init__(self, refusal: SharingError, asked_s: float) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.asked_s = asked_s


class Link:
    def __init__(self, peer: Peer, wire: Wire, stall_s: float) -> None:
        self.peer = peer
        self.wire = wire
        self.stall_s = stall_s
        self.offers_resuming: bool | None = None  # not asked yet

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query = None,
        headers: Mapping[str, str] | None = None,
        value: Any = None,
        body: Callable[[], Body] | None = None,
        pauses_s: Sequence[float] | None = None,
        bare: bool = False,
    ) -> Answer:
        """The JSON answered; `bare`: its body does not matter.

        Every call may be repeated: an equal upload answers the record it made before.
        """
        if value is not None:
            data = json.dumps(value).encode()
            body = lambda: Body(iter([data]), len(data), "application/json")  # noqa: E731
        left = Patience(patience.CALL_PAUSES_S if pauses_s is None else pauses_s)
        tries = 0
        while True:
            tries += 1
            try:
                async with self.open(method, path, query=query, headers=headers, body=body and body()) as reply:
                    await self.check(method, path, reply)
                    answer = None if bare else self._json(path, await self._whole(path, reply, MAX_JSON))
                    return Answer(reply.status, reply.headers, answer, tries)
            except Busy as busy:
                pause = left.pause(busy.asked_s)
                if pause is None:
                    raise busy.refusal from None
            except httpx.TransportError as error:
                pause = left.pause()
                if pause is None or isinstance(error, httpx.TimeoutException | httpx.UnsupportedProtocol):
                    raise self.unreachable(error) from None
            await self.wire.sleep(pause)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Query = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        read_s: float = ANSWER_S,
    ) -> AsyncIterator[Reply]:
        """The answer to a request. A GET follows redirects, without the token as soon as they lead elsewhere."""
        url = f"{self.peer.url}/api/v1{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
        at_home, receipt = True, ""
        for _ in range(MAX_REDIRECTS + 1):
            carried = dict(headers or {})
            if at_home and self.peer.token:
                carried["Authorization"] = f"Bearer {self.peer.token}"
            async with self.wire.open(method, url, carried, body, at_home=at_home, read_s=read_s) as reply:
                if at_home:
                    receipt = reply.headers.get("x-hxmlops-receipt", receipt)
                if reply.status not in REDIRECTS:
                    encoding = reply.headers.get("content-encoding", "identity")
                    if encoding != "identity":
                        raise SharingError(
                            f"{self.where(path)} answers with the encoding {one_line(encoding)[:40]}, which was not "
                            "asked for: is there a proxy that changes bytes?"
                        )
                    yield replace(reply, receipt=receipt)
                    return
                url = self._redirected(method, path, url, reply)
            at_home = at_home and _origin(url) == _origin(self.peer.url)
        raise SharingError(f"{self.where(path)} redirects more than {MAX_REDIRECTS} times: tell its owner")

    async def check(self, method: str, path: str, reply: Reply) -> None:
        """Busy or SharingError for an answer that is an error."""
        if reply.status < 400:
            return
        problem = await self._whole(path, reply, MAX_PROBLEM, cut=True)
        refusal = self._refused(method, path, reply, problem)
        if reply.status in BUSY:
            raise Busy(refusal, _retry_after(reply.headers.get("retry-after", "")))
        raise refusal

    def where(self, path: str) -> str:
        return f"{self.peer.url}/api/v1{path}"

    def unreachable(self, error: Exception) -> SharingError:
        reason = one_line(str(error)) or type(error).__name__
        return SharingError(f"{self.peer.url} cannot be reached ({reason}): check the url and that its server runs")

    async def _whole(self, path: str, reply: Reply, limit: int, *, cut: bool = False) -> bytes:
        """A body in memory. Of one beyond the limit, SharingError or, with `cut`, its beginning."""
        data, pace = bytearray(), Pace(self.stall_s)
        async for block in reply.blocks:
            pace.check(len(block))
            data += block
            if len(data) > limit:
                if cut:
                    break
                raise SharingError(f"{self.where(path)} answers more than {limit >> 20} MiB: is this a sharing API?")
        return bytes(data[:limit])

    def _json(self, path: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise SharingError(f"{self.where(path)} answered no JSON: is this a sharing API?") from None

    def _refused(self, method: str, path: str, reply: Reply, problem: bytes) -> SharingError:
        status = reply.status
        try:
            detail = self._harmless(str(json.loads(problem)["detail"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            detail = ""
        advice = detail or "no reason given: is this a sharing API?"
        if status == 401:
            holder = self.peer.token_file or "a token file"
            what = f"token expired or unknown: ask the owner of {self.peer.url} for a new one and put it in {holder}"
            advice = f"{what} ({detail})"
        elif status == 403:
            advice = f"{detail}: ask the owner of {self.peer.url} for a token that allows it"
        request_id = self._harmless(reply.headers.get("x-request-id", ""))[:64]
        if status >= 500 and request_id:
            advice += f" (request id {request_id})"
        return SharingError(f"{method} {self.where(path)}: {status}: {advice}", status, detail, request_id)

    def _harmless(self, text: str) -> str:
        """What a server says of itself: one line that a terminal shows as it is, without our token."""
        line = one_line(text)[:1000]
        return line.replace(self.peer.token, "<token>") if self.peer.token else line

    def _redirected(self, method: str, path: str, url: str, reply: Reply) -> str:
        """The url of a redirect. SharingError when it is not to be followed."""
        try:
            target = urljoin(url, reply.headers.get("location", ""))
            parts = urlsplit(target)
            harmless = parts.hostname and parts.username is None and parts.port != 0
        except ValueError:
            target, parts, harmless = "", urlsplit(""), None
        shown = one_line(f"{parts.scheme}://{parts.hostname}")[:200]  # the rest may be a presigned secret
        if method not in ("GET", "HEAD"):
            raise SharingError(f"{method} {self.where(path)} is redirected to {shown}: use that url if you trust it")
        if not harmless or parts.scheme not in ("https", urlsplit(url).scheme):
            raise SharingError(f"{self.where(path)} redirects to {shown}, which is not followed: tell its owner")
        return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _retry_after(value: str) -> float:
    """Seconds that `Retry-After` asks for; 0 when it does not say."""
    if re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
