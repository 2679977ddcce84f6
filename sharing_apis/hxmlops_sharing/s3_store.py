"""A store in a bucket of an S3 server: `objects/ab/abcdef…`, below a prefix if there is one.

An upload of some size is a multipart upload, which S3 shows to nobody before it is complete. What a server that died
left unfinished is found by `list` and aborted by `remove`, like objects that nothing refers to.
"""

import asyncio
import contextlib
import errno
import os
import re
import secrets
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import httpx2 as httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from hxmlops_sharing.s3_signing import presigned_url
from hxmlops_sharing.settings import ENVIRONMENT, Settings
from hxmlops_sharing.store import BLOCK, LARGEST, Segment, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions
    from obstore.store import RetryConfig, S3Config

_PART = 5 << 20  # the least that S3 allows
_PARTS_AT_ONCE = 3
_FEW = 4  # uploads; each of more sends one part at once
_BLOCKS_WAITING = 2
_TRIES = 4

_CONNECT_S = 5
_REQUEST_S = 20
_COMPLETE_S = 300  # an S3 server may copy all parts before it answers
_STREAM_S = 7 * 24 * 3600  # a client may be slow; each wait for the server is limited by _REQUEST_S
_STALLED_S = 60
_CHECK_S = 5
_DISCARD_S = 10
_URL_S = 300
_BEAT_S = 300
_RETRY: "RetryConfig" = {
    "max_retries": 5,
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=3), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}

_OBJECTS = "objects"
_BEATS = "writing"
_PROBE = "probe/clock"

_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_KEY_REFUSED = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "XAdminUserNotFound"}


class S3Store:
    """Fulfils `store.Store`. Several servers may share one prefix."""

    def __init__(self, settings: Settings) -> None:
        self.bucket, _, prefix = settings.store.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/")
        self.endpoint = settings.s3_endpoint.rstrip("/") or f"https://s3.{settings.s3_region}.amazonaws.com"
        self.writing: set[str] = set()
        self.cleaning: set[asyncio.Task[None]] = set()
        self._settings = settings
        self._abandoned: dict[str, str] = {}

    async def open(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise StoreError(f"{ENVIRONMENT}S3_ENDPOINT is not a URL such as https://s3.example.com: correct it")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket):
            raise StoreError(f"{ENVIRONMENT}STORE names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")
        if self.prefix and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", self.prefix, re.ASCII):
            raise StoreError(f"{ENVIRONMENT}STORE: the prefix is more than names of letters, digits, . _ - between /")
        if bool(self._settings.s3_access_key) != bool(self._settings.s3_secret_key):
            raise StoreError(f"{ENVIRONMENT}S3_ACCESS_KEY and {ENVIRONMENT}S3_SECRET_KEY belong together: set both")
        if not self._settings.s3_path_style:
            self.endpoint = f"{parts.scheme}://{self.bucket}.{parts.netloc}"
        self.url_of_bucket = f"{self.endpoint}/{self.bucket}" if self._settings.s3_path_style else self.endpoint
        self.patient = self._connect(_COMPLETE_S)
        self.quick = self._connect(_REQUEST_S)
        self._streaming = self._connect(_STREAM_S)
        try:
            await obstore.put_async(self.quick, _PROBE, b"", use_multipart=False)
        except Exception as error:
            raise StoreError(self._remedy(_Answer.of(error))) from None

    def _connect(self, seconds: float) -> Bucket:
        """Every option that the environment of the process could change is set."""
        access_key = self._settings.s3_access_key.get_secret_value()
        secret_key = self._settings.s3_secret_key.get_secret_value()
        config: S3Config = {
            "endpoint": self.endpoint,
            "aws_endpoint_url_s3": self.endpoint,
            "region": self._settings.s3_region,
            "virtual_hosted_style_request": not self._settings.s3_path_style,
            "disable_bulk_delete": True,
            "skip_signature": False,
        }
        if access_key:
            config |= {"access_key_id": access_key, "secret_access_key": secret_key, "session_token": ""}
        return Bucket(
            self.bucket,
            prefix=self.prefix or None,
            config=config,
            client_options={
                "allow_http": self.endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "timeout": timedelta(seconds=seconds),
            },
            retry_config=_RETRY,
        )

    def _remedy(self, answer: "_Answer") -> str:
        if answer.code == "NoSuchBucket":
            return f"{ENVIRONMENT}STORE: {self.endpoint} has no bucket {self.bucket}: make it, or name another"
        if answer.code in _KEY_REFUSED or answer.status in (401, 403):
            return (
                f"{ENVIRONMENT}S3_ACCESS_KEY: {self.endpoint} refuses it ({answer.reason}): set it and "
                f"{ENVIRONMENT}S3_SECRET_KEY to a key that may read, write, list and delete in bucket {self.bucket}"
            )
        if answer.code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "IncorrectEndpoint"):
            return f"{ENVIRONMENT}S3_REGION: bucket {self.bucket} is in another region: name that one"
        todo = "start the S3 server, or correct the URL"
        if "certificate" in answer.reason:
            todo = "name the file of its CA in SSL_CERT_FILE"
        return f"{ENVIRONMENT}S3_ENDPOINT: {self.endpoint}: {answer.reason}: {todo}"

    async def close(self) -> None:
        if self.cleaning:
            await asyncio.wait(self.cleaning, timeout=_DISCARD_S)

    async def check(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_S):
                try:
                    await obstore.get_async(self.quick, _PROBE)
                except FileNotFoundError:
                    await self._answer(obstore.put_async(self.quick, _PROBE, b"", use_multipart=False))
        except TimeoutError:
            raise StoreUnavailable("S3 did not answer in time") from None
        except BaseError as error:
            raise _Answer.of(error).error() from None

    def writer(self) -> "S3Writer":
        name = secrets.token_hex(16)
        return S3Writer(self, f"{_OBJECTS}/{name[:2]}/{name}")

    async def size(self, location: str) -> int | None:
        try:
            return (await obstore.head_async(self.quick, location))["size"]
        except FileNotFoundError:
            await self.check()  # an S3 server may say the same when the bucket or the key is gone
            return None
        except BaseError as error:
            raise _Answer.of(error).error() from None

    async def read(self, location: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """FileNotFoundError when nothing is there. A stream that breaks off is taken up again where it was."""
        stream: BytesStream | None = None
        failures = 0
        while start < stop:
            try:
                async with asyncio.timeout(_REQUEST_S):
                    if stream is None:
                        options: GetOptions = {"range": (start, stop)}
                        stream = (await obstore.get_async(self._streaming, location, options=options)).stream(BLOCK)
                    block = await anext(stream, b"")
            except (BaseError, FileNotFoundError, TimeoutError) as error:
                answer = _Answer.of(error)
                if answer.code == "NoSuchKey":
                    raise FileNotFoundError(errno.ENOENT, "not in the store", location) from None
                if answer.status == 416:
                    raise EOFError(f"{location} ends before byte {stop}") from None
                failures += 1
                if answer.status or failures == _TRIES:
                    raise answer.error() from None
                stream = None
                await asyncio.sleep(0.2 * 2**failures)
            else:
                if not block:
                    raise EOFError(f"{location} ends before byte {stop}")
                yield block
                start += len(block)
                failures = 0

    async def remove(self, location: str) -> None:
        upload = self._abandoned.pop(location, None)
        if upload is not None:
            await self._abort(location, upload)
        with contextlib.suppress(FileNotFoundError):
            await self._answer(obstore.delete_async(self.quick, location))

    async def list(self, *, older_than_s: float) -> AsyncIterator[Segment]:
        """What another server is about to finish or keep is left out only where this is ten minutes or more."""
        try:
            now = await self._now()
            writing = await self._written_elsewhere(now, max(older_than_s, 2 * _BEAT_S))
            async for batch in obstore.list(self.quick, _OBJECTS, chunk_size=1000):
                for entry in batch:
                    location = entry["path"]
                    old = (now - entry["last_modified"]).total_seconds() >= older_than_s
                    if old and location not in self.writing and location.rpartition("/")[2] not in writing:
                        yield Segment(location, entry["size"])
        except (BaseError, FileNotFoundError) as error:
            raise _Answer.of(error).error() from None
        for upload in await self._unfinished(f"{_OBJECTS}/"):
            old = (now - upload.since).total_seconds() >= older_than_s
            name = upload.location.rpartition("/")[2]
            if old and upload.location not in self.writing and name not in writing:
                self._abandoned[upload.location] = upload.identifier
                yield Segment(upload.location, 0)

    def path(self, location: str) -> Path | None:  # noqa: ARG002
        return None

    async def url(self, location: str, *, filename: str, media_type: str) -> str | None:
        if not self._settings.s3_access_key:  # obstore has credentials of the machine: it signs without names
            return await self._answer(obstore.sign_async(self.quick, "GET", location, timedelta(seconds=_URL_S)))
        plain = re.sub(r"[^ !#-\[\]-~]", "_", filename)
        names = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
        return self._signed(
            "GET",
            location,
            {"response-content-disposition": names, "response-content-type": media_type},
        )

    async def beat(self, location: str) -> None:
        """Say to other servers that this location is being written to."""
        beat = f"{_BEATS}/{location.rpartition('/')[2]}"
        await self._answer(obstore.put_async(self.quick, beat, b"", use_multipart=False))

    async def forget(self, location: str, *, multipart: bool, beaten: bool) -> None:
        """Remove all that is there of something that was not to be."""
        if multipart:
            for upload in await self._unfinished(location):
                await self._abort(location, upload.identifier)
        await self.remove(location)
        if beaten:
            await self.remove(f"{_BEATS}/{location.rpartition('/')[2]}")

    async def _now(self) -> datetime:
        """The time by the clock of the S3 server, to which ages are compared."""
        await obstore.put_async(self.quick, _PROBE, b"", use_multipart=False)
        async for batch in obstore.list(self.quick, _PROBE.partition("/")[0]):
            for entry in batch:
                return entry["last_modified"]
        raise StoreUnavailable("S3 does not list what was written")

    async def _written_elsewhere(self, now: datetime, fresh_s: float) -> set[str]:
        """Names that a server wrote to not longer ago than that; older beats are removed.

        S3 dates an object from the beginning of its upload, so that a long one is old when it has just been finished.
        """
        fresh = set()
        async for batch in obstore.list(self.quick, _BEATS, chunk_size=1000):
            for entry in batch:
                if (now - entry["last_modified"]).total_seconds() <= fresh_s:
                    fresh.add(entry["path"].rpartition("/")[2])
                else:
                    await obstore.delete_async(self.quick, entry["path"])
        return fresh

    async def _unfinished(self, start: str) -> "Sequence[_Upload]":
        """Multipart uploads to locations that start so; none without a key of our own, as obstore cannot list them."""
        if not self._settings.s3_access_key:
            return []
        above = f"{self.prefix}/" if self.prefix else ""
        query = {"uploads": "", "prefix": above + start}
        found = []
        while True:
            answer = await self._ask("GET", "", query)
            try:
                page = ElementTree.fromstring(answer)  # noqa: S314 (of the server that has all the bytes)
                for entry in page.iterfind("{*}Upload"):
                    location = entry.findtext("{*}Key", "").removeprefix(above)
                    since = datetime.fromisoformat(entry.findtext("{*}Initiated", ""))
                    found.append(_Upload(location, entry.findtext("{*}UploadId", ""), since))
            except (ElementTree.ParseError, ValueError):
                raise StoreUnavailable("S3 lists uploads as no S3 server does") from None
            if page.findtext("{*}IsTruncated") != "true":
                return found
            query["key-marker"] = page.findtext("{*}NextKeyMarker", "")
            query["upload-id-marker"] = page.findtext("{*}NextUploadIdMarker", "")

    async def _abort(self, location: str, upload: str) -> None:
        await self._ask("DELETE", location, {"uploadId": upload})

    async def _ask(self, method: str, location: str, query: dict[str, str]) -> bytes:
        """What obstore has no function for."""
        timeout = httpx.Timeout(_REQUEST_S, connect=_CONNECT_S)
        try:
            async with httpx.AsyncClient(timeout=timeout) as http:
                answer = await http.request(method, self._signed(method, location, query))
        except httpx.HTTPError:
            raise StoreUnavailable("S3 did not answer") from None
        if answer.is_success or answer.status_code in (404, 501):  # nothing there; no such function
            return answer.content
        raise _Answer.of(f"status code: {answer.status_code} {answer.text}").error()

    def _signed(self, method: str, location: str, query: dict[str, str]) -> str:
        key = f"/{self.prefix}/{location}" if self.prefix else f"/{location}"
        return presigned_url(
            method,
            self.url_of_bucket + (quote(key, safe="/~") if location else ""),
            query,
            region=self._settings.s3_region,
            access_key=self._settings.s3_access_key.get_secret_value(),
            secret_key=self._settings.s3_secret_key.get_secret_value(),
            expires_s=_URL_S,
        )

    async def _answer[T](self, request: Awaitable[T]) -> T:
        try:
            return await request
        except (BaseError, FileNotFoundError) as error:
            raise _Answer.of(error).error() from None


class S3Writer:
    """Fulfils `store.Writer`. Up to a part, bytes are put at once; more are uploaded in parts while others arrive."""

    def __init__(self, store: S3Store, location: str) -> None:
        self._store = store
        self._location = location
        self._size = 0
        self._first: deque[bytes] = deque()
        self._more: asyncio.Queue[bytes | _Stopped | None] = asyncio.Queue(_BLOCKS_WAITING)
        self._task: asyncio.Task[object] | None = None
        self._multipart = False
        self._beaten = time.monotonic()
        self._has_beaten = False
        self._over = False

    async def write(self, block: bytes) -> None:
        if self._size + len(block) > LARGEST:
            raise OSError(errno.EFBIG, "larger than an object may be", self._location)
        self._store.writing.add(self._location)
        self._size += len(block)
        if self._task is not None:
            await self._offer(self._task, block)
            await self._beat()
            return
        self._first.append(block)
        if self._size > _PART:
            self._multipart = True
            self._task = self._put(self._blocks())

    async def finish(self) -> Segment:
        self._store.writing.add(self._location)
        if self._task is None:
            self._task = self._put(b"".join(self._first))
        else:
            await self._beat()
            await self._offer(self._task, None)
        await asyncio.wait([self._task])
        _raise_failure(self._task)
        return Segment(self._location, self._size)

    def keep(self) -> None:
        self._over = True
        self._store.writing.discard(self._location)

    async def discard(self) -> None:
        if self._over:
            return
        self._over = True
        self._first.clear()
        if self._task is not None:
            cleaning = asyncio.create_task(self._clean(self._task))
            self._store.cleaning.add(cleaning)
            cleaning.add_done_callback(self._store.cleaning.discard)
            await asyncio.wait([cleaning], timeout=_DISCARD_S)  # it goes on when that is not enough
        self._store.writing.discard(self._location)

    async def _clean(self, task: asyncio.Task[object]) -> None:
        while not self._more.empty():
            self._more.get_nowait()
        self._more.put_nowait(_Stopped())
        await asyncio.wait([task])
        failed = task.exception() is not None
        with contextlib.suppress(OSError, StoreUnavailable):  # the collector finds what is left
            multipart = failed and self._multipart
            await self._store.forget(self._location, multipart=multipart, beaten=self._has_beaten)

    def _put(self, content: bytes | AsyncIterator[bytes]) -> asyncio.Task[object]:
        async def upload() -> object:
            return await obstore.put_async(
                self._store.patient if self._multipart else self._store.quick,
                self._location,
                content,
                use_multipart=self._multipart,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE if len(self._store.writing) <= _FEW else 1,
            )

        return asyncio.create_task(upload())

    async def _blocks(self) -> AsyncIterator[bytes]:
        while self._first:
            yield self._first.popleft()
        while (block := await self._more.get()) is not None:
            if isinstance(block, _Stopped):
                raise block  # obstore aborts the upload
            yield block

    async def _offer(self, task: asyncio.Task[object], block: bytes | None) -> None:
        """Hand the block over, or raise why the upload takes no more."""
        if task.done():
            _raise_failure(task)
        if not self._more.full():
            self._more.put_nowait(block)
            return
        offer = asyncio.create_task(self._more.put(block))
        try:
            done, _ = await asyncio.wait([offer, task], timeout=_STALLED_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            offer.cancel()
        if task in done:
            _raise_failure(task)
        if not done:
            raise StoreUnavailable("S3 takes no bytes")

    async def _beat(self) -> None:
        if time.monotonic() - self._beaten >= _BEAT_S:
            self._has_beaten = True
            await self._store.beat(self._location)
            self._beaten = time.monotonic()


def _raise_failure(task: asyncio.Task[object]) -> None:
    failure = task.exception()
    if failure is not None:
        raise _Answer.of(failure).error() from None


class _Stopped(Exception):
    """The upload is to end without an object."""


@dataclass(frozen=True)
class _Upload:
    """A multipart upload that was begun."""

    location: str
    identifier: str
    since: datetime


@dataclass(frozen=True)
class _Answer:
    """What an S3 server answered when something failed; of an obstore error, which may quote what nobody is to see."""

    status: int
    code: str
    reason: str

    @classmethod
    def of(cls, error: BaseException | str) -> "_Answer":
        text = str(error)
        status = re.search(r"status code: (\d{3})", text)
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        if status or code:
            said = " ".join(match[1] for match in (status, code) if match)
            reason = f"S3 answered {said}"
        elif isinstance(error, TimeoutError) or re.search(r"TimedOut|timed out|Timeout", text):
            reason = "S3 did not answer in time"
        elif "InvalidCertificate" in text:
            reason = "its certificate is not trusted here"
        elif "Connect" in text or "dns error" in text:
            reason = "S3 cannot be reached"
        else:
            reason = "S3 broke off its answer"
        return cls(int(status[1]) if status else 0, code[1] if code else "", reason)

    def error(self) -> Exception:
        """What to raise of it."""
        if self.status == 507 or self.code in _FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return StoreUnavailable(self.reason)
