"""The calls of a sharing API, for both clients."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from hxmlops_evidence.errors import one_line
from hxmlops_sharing.calls import patience, resumable
from hxmlops_sharing.calls.downloads import Download, Downloaded, Progress, key_of, verified
from hxmlops_sharing.calls.errors import SharingError, WrongBytes
from hxmlops_sharing.calls.link import Answer, Link
from hxmlops_sharing.calls.pair import NoPair, unpack
from hxmlops_sharing.calls.partial import Partial
from hxmlops_sharing.calls.receipts import Receipt, fetch_receipt, write_receipts
from hxmlops_sharing.calls.resumable import ResumableUpload, Resume
from hxmlops_sharing.calls.uploads import Form, OutgoingFile

STATUSES = ("production", "staging", "training")  # the server takes `development` for `training`
PAGE = 500
MAX_RECORDS = 2_000_000
RESUMABLE_FROM = 64 << 20

type Kind = Literal["model", "dataset"]
type Record = dict[str, Any]


class Calls:
    """One sharing API. Files that cannot be read or written raise OSError; all else that fails SharingError."""

    def __init__(self, link: Link, resumable_from: int) -> None:
        self._link = link
        self._resumable_from = resumable_from

    @property
    def url(self) -> str:
        return self._link.peer.url

    async def catalog(
        self, kind: Kind, *, tag: str | None = None, name: str | None = None, version: str | None = None
    ) -> list[Record]:
        """Records that match, oldest first; [] when none does. Models of every status."""
        query: dict[str, Any] = {"tag": tag, "name": name, "version": version}
        query = {key: value for key, value in query.items() if value is not None}
        if kind == "model":
            query["status"] = list(STATUSES)
        records: list[Record] = []
        after: int | None = 0
        while after is not None:
            try:
                answer = await self._link.call("GET", f"/{kind}_catalog", query=query | {"limit": PAGE, "after": after})
            except SharingError as error:
                if error.status == 404 and error.detail not in ("", "Not Found"):  # those: no such call there
                    return records
                raise
            page = self._records(answer, f"/{kind}_catalog", f"{kind}s")
            records += page
            if len(records) > MAX_RECORDS:
                raise SharingError(f"{self.url} lists more than {MAX_RECORDS} versions: ask for a name or a tag")
            after = self._next_page(answer, after) if page else None
        return records

    async def record(self, kind: Kind, identifier: int, version: str = "latest") -> Record:
        """The record registered as `identifier`, or another of its name: the `latest`, or that of an `@ALIAS`."""
        return await self._record("GET", f"/{kind}/{int(identifier)}/data", query={"version": version})

    async def versions(self, kind: Kind, identifier: int) -> list[Record]:
        """Records of all versions of the name that `identifier` has, the latest first."""
        path = f"/{kind}/{int(identifier)}/versions"
        return self._records(await self._link.call("GET", path), path, f"{kind}s")

    async def aliases(self, name: str, alias: str | None = None) -> list[Record]:
        """The aliases that a name has now; with `alias`, the history of that one, what it is now first."""
        path = "/aliases" if alias is None else _alias_path(alias)
        return self._records(await self._link.call("GET", path, query={"name": name}), path, "aliases")

    async def set_alias(self, name: str, alias: str, identifier: int | None, *, revision: int | None = None) -> Record:
        """Let an alias name the version registered as `identifier`, or none; answers what it is now.

        With `revision` only when it has that one (0: is new); SharingError 412 when somebody was faster.
        """
        path, headers = _alias_path(alias), {}
        if revision is not None:
            headers = {"If-Match": f'"{int(revision)}"'} if revision else {"If-None-Match": "*"}
        if identifier is None:
            return await self._record("DELETE", path, query={"name": name}, headers=headers)
        value = {"identifier": int(identifier)}
        try:
            return await self._record("PUT", path, query={"name": name}, headers=headers, value=value)
        except SharingError as error:
            if error.status != 412:
                raise
            newest = (await self.aliases(name, alias))[0]
            if (newest.get("revision"), newest.get("identifier")) != (int(revision or 0) + 1, identifier):
                raise
            return newest  # it was done, and the answer lost

    async def set_characteristics(self, identifier: int, values: Mapping[str, Any]) -> Record:
        """Add characteristics to a model; answers its record."""
        return await self._record("POST", f"/model/{int(identifier)}/characteristics", value=dict(values))

    async def upload_model(
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
        sha256: str | None = None,
        resume: Path | None = None,
        progress: Progress = None,
    ) -> Record:
        """Register a version; answers its record, also when the same was registered before.

        `sha256` is declared where it is known. Large files go on where they broke off; with the file `resume`, in
        which that is noted meanwhile, also when this process has ended.
        """
        metadata = {
            "name": name,
            "version": version,
            "status": status,
            "library": library,
            "libraryVersion": library_version,
            "domain": domain,
            "tag": tag,
            "parameters": dict(parameters),
            "characteristics": dict(characteristics),
        }
        return await self._upload("/model", metadata, {"file": (file, sha256)}, {"file": "sha256"}, resume, progress)

    async def upload_dataset(
        self,
        dataset: Path,
        data_model: Path,
        *,
        name: str,
        version: str,
        data_type: str,
        tag: str,
        parameters: Mapping[str, Any],
        dataset_sha256: str | None = None,
        data_model_sha256: str | None = None,
        resume: Path | None = None,
        progress: Progress = None,
    ) -> Record:
        """Register a version, as `upload_model` does."""
        metadata = {
            "name": name,
            "version": version,
            "dataType": data_type,
            "tag": tag,
            "parameters": dict(parameters),
        }
        files = {"dataModelFile": (data_model, data_model_sha256), "datasetFile": (dataset, dataset_sha256)}
        members = {"dataModelFile": "dataModelSha256", "datasetFile": "datasetSha256"}
        return await self._upload("/dataset", metadata, files, members, resume, progress)

    async def download_artifact(
        self,
        sha256: str,
        target: Path,
        *,
        max_bytes: int | None = None,
        progress: Progress = None,
        receipt: Path | None = None,
        receipt_key: Path | None = None,
    ) -> Downloaded:
        """Write the bytes with this digest to `target`, which appears whole or not at all.

        What came of an interrupted download waits in a file beside it, and the next one goes on there. `receipt` is
        where the server's receipts go, if it signs any; with `receipt_key` (PEM) it must, by that key.
        """
        with ExitStack() as stack:
            file, download = await self._begin(stack, sha256, target, max_bytes, progress)
            await verified(download, file, sha256, self._link)
            await self._link.wire.work(partial(file.become, target))
        return await self._received(file, download, sha256, receipt, receipt_key)

    async def download_dataset(
        self,
        record: Record,
        folder: Path,
        *,
        max_bytes: int | None = None,
        progress: Progress = None,
        receipt: Path | None = None,
        receipt_key: Path | None = None,
    ) -> Downloaded:
        """Write a record's two files to `folder`: `dataset` and `dataModel`. Both digests are checked."""
        try:
            expected = {"dataset": record["datasetSha256"], "dataModel": record["dataModelSha256"]}
            sha256 = record["sha256"]
        except KeyError:
            raise SharingError(f"{self.url} names no digests: datasets can be fetched from HX-MLOps alone") from None
        with ExitStack() as stack:
            file, download = await self._begin(stack, sha256, folder / "pair", max_bytes, progress)
            await download.run()
            try:
                try:
                    await self._link.wire.work(partial(unpack, file.file, folder, expected))
                except NoPair:
                    if not download.is_pieced_together:
                        raise
                    await download.again()
                    await self._link.wire.work(partial(unpack, file.file, folder, expected))
            except NoPair:
                file.remove()
                raise WrongBytes(
                    f"{self.url} answered another dataset than {sha256}: use none of it, tell its owner"
                ) from None
            file.remove()
        return await self._received(file, download, sha256, receipt, receipt_key)

    async def receipt(self, reference: str, *, key: Path | None = None) -> Receipt:
        """The signed receipt of a download of ours: `reference` is one of what the download has returned."""
        receipt = await fetch_receipt(self._link, reference, key)
        if receipt is None:
            raise SharingError(
                f"{self.url} gives no receipt {one_line(reference)[:100]}: it signs none, or not this one"
            )
        return receipt

    async def _begin(
        self, stack: ExitStack, sha256: str, target: Path, max_bytes: int | None, progress: Progress
    ) -> tuple[Partial, Download]:
        if not re.fullmatch("sha256:[0-9a-f]{64}", sha256):
            raise SharingError(
                f"{one_line(sha256)[:100]!r} is no digest: it should be sha256: and 64 hexadecimal digits"
            )
        file = await self._link.wire.work(partial(Partial, target, key_of(sha256)))
        stack.callback(file.close)
        await self._link.wire.work(file.take_up)
        return file, Download(self._link, f"/artifacts/{sha256}", file, max_bytes, progress)

    async def _received(
        self, file: Partial, download: Download, sha256: str, receipt: Path | None, receipt_key: Path | None
    ) -> Downloaded:
        if receipt is not None:
            found = [await fetch_receipt(self._link, each, receipt_key, sha256) for each in download.receipts]
            receipts = [each for each in found if each is not None]
            if receipts:
                await self._link.wire.work(partial(write_receipts, receipt, receipts))
            elif receipt_key is not None:
                raise SharingError(f"{self.url} gives no receipt of {sha256}: tell its owner")
        return Downloaded(file.size, tuple(download.receipts))

    async def _upload(
        self,
        path: str,
        metadata: Record,
        files: Mapping[str, tuple[Path, str | None]],
        members: Mapping[str, str],
        resume: Path | None,
        progress: Progress,
    ) -> Record:
        """Send files, by field, with their digests where known; `members` of the record have the digests then."""
        with ExitStack() as stack:
            outgoing = {field: OutgoingFile(file, sha256) for field, (file, sha256) in files.items()}
            for file in outgoing.values():
                stack.callback(file.close)
            large = max(file.size for file in outgoing.values()) >= self._resumable_from
            if large and await resumable.is_offered(self._link):
                noted = Resume(resume, self._link)
                record = await self._send_resumably(path, metadata, outgoing, members, noted, progress)
            else:
                record = await self._send_form(path, metadata, outgoing, progress)
            for field, member in members.items():
                sha256 = await self._link.wire.work(outgoing[field].sha256)
                if record.get(member, sha256) != sha256:  # an original HX-MLOps names no digest
                    raise SharingError(
                        f"{self.url} recorded {one_line(str(record[member]))[:80]} for {outgoing[field].path}, "
                        f"which is {sha256}: tell its owner"
                    )
            return record

    async def _send_form(
        self, path: str, metadata: Record, files: Mapping[str, OutgoingFile], progress: Progress
    ) -> Record:
        texts = {field: value if isinstance(value, str) else json.dumps(value) for field, value in metadata.items()}
        form = Form(texts, files)
        return await self._record("POST", path, body=lambda: form.body(_counter(progress, form.length)))

    async def _send_resumably(
        self,
        path: str,
        metadata: Record,
        files: Mapping[str, OutgoingFile],
        members: Mapping[str, str],
        resume: Resume,
        progress: Progress,
    ) -> Record:
        total, before = sum(file.size for file in files.values()), 0
        uploads: list[ResumableUpload] = []
        value = dict(metadata)
        for field, file in files.items():
            upload = ResumableUpload(self._link, file, resume, _behind(progress, before, total))
            value[field] = await upload.run()
            value[members[field]] = await self._link.wire.work(file.sha256)
            uploads.append(upload)
            before += file.size
        try:
            record = await self._record("POST", path, value=value, pauses_s=patience.TRANSFER_PAUSES_S)
        except SharingError as error:
            if error.status is not None and error.status < 500 and error.status not in (401, 403, 429):
                for upload in uploads:
                    await upload.discard()
                await self._link.wire.work(resume.forget)
            raise
        await self._link.wire.work(resume.forget)
        return record

    async def _record(self, method: str, path: str, **request: Any) -> Record:
        value = (await self._link.call(method, path, **request)).value
        if not isinstance(value, dict):
            raise SharingError(f"{self._link.where(path)} answered no record: is this a sharing API?")
        return value

    def _records(self, answer: Answer, path: str, member: str) -> list[Record]:
        records = answer.value.get(member) if isinstance(answer.value, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise SharingError(f"{self._link.where(path)} answered no {member}: is this a sharing API?")
        return records

    def _next_page(self, answer: Answer, after: int) -> int | None:
        """Behind which identifier the next page begins, as the answer's Link says; an original HX-MLOps has none."""
        link = re.search(r'<([^>]*)>\s*;\s*rel="?next"?', answer.headers.get("link", ""))
        if link is None:
            return None
        try:
            behind = int(parse_qs(urlsplit(link[1]).query)["after"][0])
        except (KeyError, ValueError):
            return None
        return behind if behind > after else None


def _alias_path(alias: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", alias):
        raise SharingError(f"{one_line(alias)[:100]!r} is no alias: it has up to 64 letters, digits and ._-")
    return f"/aliases/{alias}"


def _counter(progress: Progress, total: int) -> Callable[[int], None]:
    """Adds up the blocks of a body for `progress`."""
    done = 0

    def sent(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    return sent


def _behind(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Tells `progress` how far one file of several is."""

    def sent(position: int) -> None:
        if progress:
            progress(before + position, total)

    return sent
