"""Client of the sharing APIs: bodies streamed, digests checked, every failure one line (SharingError)."""

import contextlib
import hashlib
import json
import re
import ssl
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import httpx2 as httpx

BLOCK = 1 << 20
TIMEOUT = httpx.Timeout(60, connect=5, read=300)  # s; a large upload is answered when it is on disk
LOOPBACK = ("localhost", "127.0.0.1", "::1")
RETRY_AFTER_S = (0.2, 0.8)
STATUSES = ("production", "staging", "training")  # the server takes `development` for `training`

type Record = dict[str, Any]


class SharingError(Exception):
    """A call failed: what, where, why and what to do, in one line. Without an answer, `status` is None."""

    def __init__(self, message: str, status: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class SharingClient:
    """One sharing API. `url` is its root, as in `http://host:8080`; `ca` a PEM file instead of the system's.

    Files that cannot be read or written raise OSError; all else that fails raises SharingError.
    """

    def __init__(self, url: str, token_file: Path | None, ca: Path | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/api/v1")
        self.token_file = token_file
        headers = {} if token_file is None else {"Authorization": f"Bearer {_read_token(token_file, url)}"}
        try:
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1",
                headers=headers,
                timeout=TIMEOUT,
                verify=_tls(self.url, ca),
                trust_env=httpx.URL(self.url).host not in LOOPBACK,  # a company's proxy is for others
            )
        except (OSError, httpx.InvalidURL) as error:
            raise SharingError(f"cannot talk to {url}: {error}: check the url and its CA file {ca}") from None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "SharingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catalog(
        self,
        kind: Literal["model", "dataset"],
        *,
        tag: str | None = None,
        name: str | None = None,
        version: str | None = None,
    ) -> list[Record]:
        """Records that match, oldest first; [] when none does. Models of every status."""
        query: dict[str, Any] = {"tag": tag, "name": name, "version": version}
        query = {key: value for key, value in query.items() if value is not None}
        if kind == "model":
            query["status"] = list(STATUSES)
        try:
            answer = self._call("GET", f"/{kind}_catalog", params=query)
        except SharingError as error:
            if error.status == 404 and error.detail not in ("", "Not Found"):  # those: no such call there
                return []
            raise
        records: list[Record] = answer[f"{kind}s"]
        return records

    def upload_model(
        self,
        file: Path,
        *,
        name: str,
        version: str,
        status: str,
        library: str,
        library_version: str,
        domain: str,
        tag: str,
        parameters: Mapping[str, Any],
        characteristics: Mapping[str, Any],
    ) -> Record:
        """Register a version; answers its record, also when the same was registered before."""
        form = {
            "name": name,
            "version": version,
            "status": status,
            "library": library,
            "libraryVersion": library_version,
            "domain": domain,
            "tag": tag,
            "parameters": json.dumps(parameters),
            "characteristics": json.dumps(characteristics),
        }
        return self._upload("/model", form, {"file": file})

    def upload_dataset(
        self,
        dataset: Path,
        data_model: Path,
        *,
        name: str,
        version: str,
        data_type: str,
        tag: str,
        parameters: Mapping[str, Any],
    ) -> Record:
        """Register a version; answers its record, also when the same was registered before."""
        form = {
            "name": name,
            "version": version,
            "dataType": data_type,
            "tag": tag,
            "parameters": json.dumps(parameters),
        }
        return self._upload("/dataset", form, {"dataModelFile": data_model, "datasetFile": dataset})

    def set_characteristics(self, identifier: int, values: Mapping[str, Any]) -> Record:
        """Add characteristics to a model; answers its record."""
        record: Record = self._call("POST", f"/model/{identifier}/characteristics", json=values)
        return record

    def download_artifact(self, sha256: str, target: Path) -> None:
        """Write the bytes with this digest to `target`, which appears whole or not at all."""
        with _appearing(target) as file:
            digest = self._download(f"/artifacts/{sha256}", file)
            if digest != sha256:
                raise SharingError(f"{self.url} answered other bytes than {sha256}: use none of them, tell its owner")

    def download_dataset(self, record: Record, folder: Path) -> None:
        """Write a record's two files to `folder`: `dataset` and `dataModel`. Both digests are checked."""
        try:
            expected = {"dataset": record["datasetSha256"], "dataModel": record["dataModelSha256"]}
        except KeyError:
            raise SharingError(f"{self.url} names no digests: datasets can be fetched from HX-MLOps alone") from None
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as spool:
            self._download(f"/artifacts/{record['sha256']}", spool)
            with contextlib.ExitStack() as stack:
                try:
                    entries = stack.enter_context(zipfile.ZipFile(spool))
                    if sorted(entries.namelist()) != sorted(expected):
                        raise zipfile.BadZipFile
                    for name, sha256 in expected.items():
                        file = stack.enter_context(_appearing(folder / name))
                        if _copy(stack.enter_context(entries.open(name)), file) != sha256:
                            raise zipfile.BadZipFile
                except zipfile.BadZipFile:
                    raise SharingError(
                        f"{self.url} answered another dataset than {record['sha256']}: use none of it, tell its owner"
                    ) from None

    def _upload(self, path: str, form: dict[str, str], files: dict[str, Path]) -> Record:
        with contextlib.ExitStack() as stack:
            parts = {
                name: (name, stack.enter_context(file.open("rb")), "application/octet-stream")
                for name, file in files.items()
            }
            record: Record = self._call("POST", path, data=form, files=parts)
            return record

    def _call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON answered. Every call may be repeated: an equal upload answers the record it made before."""

        def attempt() -> Any:
            response = self._http.request(method, path, **request)
            if response.status_code >= 400:
                raise self._refused(method, path, response)
            try:
                return response.json()
            except ValueError:
                raise SharingError(f"{self.url}{path} answered no JSON: is this a sharing API?") from None

        return self._repeatedly(attempt)

    def _download(self, path: str, file: IO[bytes]) -> str:
        """Stream an answer into `file`, from its start; its digest."""

        def attempt() -> str:
            file.seek(0)
            file.truncate()
            digest = hashlib.sha256()
            with self._http.stream("GET", path) as response:
                if response.status_code >= 400:
                    response.read()
                    raise self._refused("GET", path, response)
                for block in response.iter_bytes(BLOCK):
                    digest.update(block)
                    file.write(block)
            return f"sha256:{digest.hexdigest()}"

        return self._repeatedly(attempt)

    def _repeatedly[T](self, attempt: Callable[[], T]) -> T:
        for delay in (*RETRY_AFTER_S, None):
            try:
                return attempt()
            except httpx.TransportError as error:
                if delay is None or isinstance(error, httpx.TimeoutException | httpx.UnsupportedProtocol):
                    reason = str(error) or type(error).__name__
                    raise SharingError(
                        f"{self.url} cannot be reached ({reason}): check the url and that its server runs"
                    ) from None
                time.sleep(delay)
        raise AssertionError

    def _refused(self, method: str, path: str, response: httpx.Response) -> SharingError:
        status = response.status_code
        try:
            detail = re.sub(r"\s+", " ", str(response.json()["detail"]))
        except (ValueError, KeyError, TypeError):
            detail = ""
        advice = detail or "no reason given: is this a sharing API?"
        if status == 401:
            holder = self.token_file or "a token file"
            what = f"token expired or unknown: ask the owner of {self.url} for a new one and put it in {holder}"
            advice = f"{what} ({detail})"
        elif status == 403:
            advice = f"{detail}: ask the owner of {self.url} for a token that allows it"
        return SharingError(f"{method} {self.url}/api/v1{path}: {status}: {advice}", status, detail)


def _read_token(path: Path, url: str) -> str:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise SharingError(f"no token for {url}: {path}: {error.strerror}") from None
    if not re.fullmatch(rb"[!-~]+", token):
        raise SharingError(f"no token for {url}: {path} holds none: ask the owner of {url} for one and put it there")
    return token.decode()


def _tls(url: str, ca: Path | None) -> ssl.SSLContext | bool:
    """Made for https alone: reading the system's certificates takes time."""
    return ssl.create_default_context(cafile=ca) if url.startswith("https:") else False


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy to the end; the digest of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
    return f"sha256:{digest.hexdigest()}"


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its name when everything went well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        path = Path(file.name)
        try:
            yield file
            file.flush()
            path.replace(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
