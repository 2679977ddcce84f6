"""Resumable uploads: the protocol as tus.io has it, and that nothing that was received is lost."""

import asyncio
import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from faults import BYTES, MIB, TUS, sha256, status_of, until
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tus_client import (
    FILES,
    begin_patch,
    checksum,
    create,
    in_base64,
    in_database,
    offset,
    patch,
    register,
    resume,
    settings_of,
    upload,
)

from hxmlops_sharing import files
from hxmlops_sharing.access import EVERYONE
from hxmlops_sharing.collect import collect
from hxmlops_sharing.service import Service
from hxmlops_sharing.tables import audit, garbage, objects, uploads

ALL_BACKENDS = True

type Start = Callable[..., AbstractContextManager[httpx.Client]]
type StartProcess = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]
type Backend = Callable[[], dict[str, Any]]

BUFFERED = 256 << 10
"""Bytes that the HTTP server may hold and lose when a connection breaks."""


@pytest.fixture
def serve(start_in: Start, tmp_path: Path, place: dict[str, Any]) -> Start:
    """Starts an API there, with settings by keyword."""
    return lambda **given: start_in(tmp_path, **place | given)


@pytest.fixture
def api(serve: Start) -> Iterator[httpx.Client]:
    with serve() as client:
        yield client


def test_what_the_server_can(api: httpx.Client) -> None:
    answer = api.options(FILES)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration,checksum,termination"
    assert answer.headers["Tus-Max-Size"] == str(1 << 40)
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"
    assert api.options(FILES + "/" + "0" * 32).status_code == 204


def test_a_file_in_three_requests(api: httpx.Client) -> None:
    data = os.urandom(3 * MIB + 5)
    url = create(api, len(data), **{"Upload-Metadata": f"filename {in_base64(b'churn.tar')},draft"})
    for place, stop in [(0, MIB), (MIB, MIB + 1), (MIB + 1, len(data))]:
        answer = patch(api, url, place, data[place:stop])
        assert (answer.status_code, answer.headers["Upload-Offset"], answer.content) == (204, str(stop), b"")
        assert 23.9 < (parsedate_to_datetime(answer.headers["Upload-Expires"]).timestamp() - time.time()) / 3600 < 24
    answer = api.head(url, headers=TUS)
    assert answer.headers["Upload-Offset"] == answer.headers["Upload-Length"] == str(len(data))
    assert answer.headers["Upload-Metadata"] == f"filename {in_base64(b'churn.tar')},draft"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Repr-Digest"] == f"sha-256=:{in_base64(hashlib.sha256(data).digest())}:"
    record = register(api, url, tag="t").json()
    assert (record["modelIdentifier"], record["sha256"], record["size"]) == (1, sha256(data), len(data))
    assert api.get("/api/v1/model/1").content == data
    assert (
        api.get("/api/v1/model/1", headers={"Range": f"bytes={MIB - 1}-{MIB + 1}"}).content == data[MIB - 1 : MIB + 2]
    )
    assert api.head(url, headers=TUS).status_code == 404


@pytest.mark.parametrize("path", [FILES, FILES + "/"])
def test_creation_with_upload(api: httpx.Client, path: str) -> None:
    headers = BYTES | {"Upload-Length": "10"} | checksum("sha1", b"abcd")
    answer = api.post(path, content=b"abcd", headers=headers)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "4")
    assert "Upload-Expires" in answer.headers
    url = answer.headers["Location"]
    assert re.fullmatch(r"/api/v1/files/[0-9a-f]{32}", url)
    assert patch(api, url, 4, b"efghij", **checksum("sha256", b"efghij")).status_code == 204
    assert register(api, url).json()["sha256"] == sha256(b"abcdefghij")


def test_an_empty_file(api: httpx.Client) -> None:
    for version in "12":
        url = create(api, 0)
        assert offset(api, url) == 0
        assert register(api, url, version).json()["sha256"] == sha256(b"")
        assert api.get(f"/api/v1/model/{version}").content == b""


def headers_of(**headers: str | None) -> dict[str, str]:
    """Those of a good PATCH at offset 4, changed; None takes one away."""
    good = BYTES | {"Upload-Offset": "4"}
    changed = good | {name.replace("_", "-"): value for name, value in headers.items()}
    return {name: value for name, value in changed.items() if value is not None}


ABCD = in_base64(hashlib.sha1(b"abcd", usedforsecurity=False).digest())
PATCHES: dict[str, tuple[dict[str, str], bytes, int]] = {
    "no version": (headers_of(Tus_Resumable=None), b"ef", 412),
    "another version": (headers_of(Tus_Resumable="0.2.2"), b"ef", 412),
    "no type": (headers_of(Content_Type=None), b"ef", 415),
    "another type": (headers_of(Content_Type="application/octet-stream"), b"ef", 415),
    "no offset": (headers_of(Upload_Offset=None), b"ef", 400),
    "negative offset": (headers_of(Upload_Offset="-4"), b"ef", 400),
    "signed offset": (headers_of(Upload_Offset="+4"), b"ef", 400),
    "words": (headers_of(Upload_Offset="four"), b"ef", 400),
    "underscore": (headers_of(Upload_Offset="0_4"), b"ef", 400),
    "fraction": (headers_of(Upload_Offset="4.0"), b"ef", 400),
    "superscript": (headers_of(Upload_Offset="\xb2"), b"ef", 400),
    "endless offset": (headers_of(Upload_Offset="9" * 5000), b"ef", 400),
    "two offsets": (headers_of(Upload_Offset="4, 4"), b"ef", 400),
    "before the end": (headers_of(Upload_Offset="0"), b"ef", 409),
    "beyond the end": (headers_of(Upload_Offset="5"), b"ef", 409),
    "far beyond": (headers_of(Upload_Offset="9" * 18), b"ef", 409),
    "too long": (headers_of(), b"efghijk", 413),
    "unknown checksum": (headers_of(Upload_Checksum="crc32 3q2+7w=="), b"ef", 400),
    "checksum's algorithm only": (headers_of(Upload_Checksum="sha1"), b"ef", 400),
    "checksum not in base64": (headers_of(Upload_Checksum="sha1 ----"), b"ef", 400),
    "checksum too short": (headers_of(Upload_Checksum="sha1 YWI="), b"ef", 400),
    "another checksum": (headers_of(Upload_Checksum="sha1 " + ABCD), b"ef", 460),
}


@pytest.mark.parametrize(("headers", "body", "status"), PATCHES.values(), ids=PATCHES)
def test_patches_that_are_refused(api: httpx.Client, headers: dict[str, str], body: bytes, status: int) -> None:
    url = create(api, 10)
    patch(api, url, 0, b"abcd")
    for content in (body, iter([body[:1], body[1:]])):  # the second in chunks, without a length
        encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = api.patch(url, content=content, headers=encoded)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert ("Tus-Version" in answer.headers) is (status == 412)
        assert offset(api, url) == 4
    assert patch(api, url, 4, b"efghij").status_code == 204
    assert register(api, url).json()["sha256"] == sha256(b"abcdefghij")


POSTS: dict[str, tuple[dict[str, str], bytes, int]] = {
    "no version": ({"Tus-Resumable": "", "Upload-Length": "1"}, b"", 412),
    "no length": ({}, b"", 400),
    "deferred length": ({"Upload-Defer-Length": "1"}, b"", 400),
    "both": ({"Upload-Defer-Length": "1", "Upload-Length": "1"}, b"", 400),
    "negative": ({"Upload-Length": "-1"}, b"", 400),
    "exponent": ({"Upload-Length": "1e3"}, b"", 400),
    "beyond 64 bits": ({"Upload-Length": "9" * 19}, b"", 400),
    "too large": ({"Upload-Length": "1001"}, b"", 413),
    "two keys alike": ({"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="}, b"", 400),
    "no key": ({"Upload-Length": "1", "Upload-Metadata": ",a YQ=="}, b"", 400),
    "empty pair": ({"Upload-Length": "1", "Upload-Metadata": "a,,b"}, b"", 400),
    "space before a key": ({"Upload-Length": "1", "Upload-Metadata": "a YQ==, b"}, b"", 400),
    "metadata not in base64": ({"Upload-Length": "1", "Upload-Metadata": "a %%%"}, b"", 400),
    "script": ({"Upload-Length": "1", "Upload-Metadata": "a <script>"}, b"", 400),
    "body of another type": ({"Upload-Length": "3", "Content-Type": "text/plain"}, b"abc", 415),
    "body too long": ({"Upload-Length": "3"} | BYTES, b"abcd", 413),
    "body with a wrong checksum": ({"Upload-Length": "3", "Upload-Checksum": "sha1 " + ABCD} | BYTES, b"abc", 460),
    "body with a bad checksum": ({"Upload-Length": "3", "Upload-Checksum": "md5 YQ=="} | BYTES, b"abc", 400),
}


@pytest.mark.parametrize(("headers", "body", "status"), POSTS.values(), ids=POSTS)
def test_creations_that_are_refused(
    serve: Start, place: dict[str, Any], headers: dict[str, str], body: bytes, status: int
) -> None:
    with serve(max_upload_bytes=1000) as api:
        answer = api.post(FILES, content=body, headers=TUS | headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert "Location" not in answer.headers
    assert in_database(place, uploads) == [[]]


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize("identifier", ["0" * 32, "1", "%2e%2e", "%00", "a" * 3000, "\u00e4"])
def test_files_that_are_not_there(api: httpx.Client, method: str, identifier: str) -> None:
    answer = api.request(method, f"{FILES}/{identifier}", headers=headers_of())
    assert answer.status_code == (400 if identifier == "%00" else 404)
    assert "Upload-Offset" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "TRACE"])
def test_methods_that_are_not_there(api: httpx.Client, method: str) -> None:
    answer = api.request(method, create(api, 1), headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (405, "1.0.0")


def test_the_method_may_be_in_a_header(api: httpx.Client) -> None:
    url = create(api, 4)
    answer = api.post(url, content=b"abcd", headers=headers_of(Upload_Offset="0", X_HTTP_Method_Override="PATCH"))
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "4")
    assert api.get(url, headers=TUS | {"X-HTTP-Method-Override": "HEAD"}).status_code == 400
    assert api.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert api.head(url, headers=TUS).status_code == 404
    assert api.post("/api/v1/model_catalog", headers={"X-HTTP-Method-Override": "GET"}).status_code == 405


def test_a_file_that_is_deleted(api: httpx.Client, place: dict[str, Any]) -> None:
    url = create(api, 10)
    patch(api, url, 0, b"abcd")
    [[row]] = in_database(place, uploads)
    assert api.delete(url, headers=TUS).status_code == 204
    assert patch(api, url, 4, b"efghij").status_code == 404
    rows, removed, lines = in_database(place, uploads, garbage, audit)
    assert rows == []
    assert [each.location for each in removed] == [location for location, _ in row.segments]
    assert [line.action for line in lines if line.action.startswith("tus-")] == ["tus-create", "tus-delete"]
    assert lines[0].detail == {"file": row.id, "bytes": 10}


def test_files_belong_to_their_client(serve: Start, tmp_path: Path) -> None:
    from hxmlops_sharing.__main__ import main

    tokens, words = tmp_path / "tokens.json", {}
    for client, scope in [("ann", "write"), ("bob", "write"), ("reader", "read")]:
        out = tmp_path / client
        command = ["token", "create", "--tokens", str(tokens), "--client", client, "--scope", scope]
        assert main([*command, "--artifact", "churn*", "--days", "1", "--out", str(out)]) == 0
        words[client] = {"Authorization": f"Bearer {out.read_text().strip()}"}
    with serve(auth="tokens", tokens=tokens) as api:
        assert api.options(FILES).status_code == 204
        assert api.post(FILES, headers=TUS | {"Upload-Length": "4"}).status_code == 401
        assert api.post(FILES, headers=TUS | {"Upload-Length": "4"} | words["reader"]).status_code == 403
        url = create(api, 4, **words["ann"])
        assert patch(api, url, 0, b"abcd", **words["ann"]).status_code == 204
        assert api.head(url, headers=TUS | words["reader"]).status_code == 403
        assert api.head(url, headers=TUS | words["bob"]).status_code == 404
        assert patch(api, url, 4, b"", **words["bob"]).status_code == 404
        assert api.delete(url, headers=TUS | words["bob"]).status_code == 404
        record = {"name": "churn", "version": "1", "file": url}
        assert api.post("/api/v1/model", json=record, headers=words["bob"]).status_code == 404
        mine = record | {"sha256": sha256(b"abcd")}
        assert api.post("/api/v1/model", json=mine, headers=words["bob"]).status_code == 404
        assert api.post("/api/v1/model", json=record | {"name": "other"}, headers=words["ann"]).status_code == 403
        assert api.post("/api/v1/model", json=record, headers=words["ann"]).status_code == 200
        stolen = mine | {"version": "2"}  # who knows the digest only does not get the bytes
        assert api.post("/api/v1/model", json=stolen, headers=words["bob"]).status_code == 404


def test_registrations_that_are_refused(api: httpx.Client) -> None:
    url = create(api, 4)
    assert register(api, url).status_code == 409
    patch(api, url, 0, b"abcd")
    assert register(api, url, sha256=sha256(b"other")).status_code == 400
    assert register(api, "0" * 32).status_code == 404
    assert register(api, "0" * 32, sha256=sha256(b"abcd")).status_code == 404
    for wrong in ("../" + url[-32:] + "x", "", 1, None, [url]):
        assert register(api, wrong).status_code == 422  # type: ignore[arg-type]
    assert register(api, url, sha256=1).status_code == 422
    assert register(api, url, status="wrong").status_code == 422
    assert api.post("/api/v1/model", json={"name": "churn", "version": "1"}).status_code == 422
    assert register(api, "http://example.invalid" + url, sha256=sha256(b"abcd")).status_code == 200


def test_a_registration_may_be_repeated(api: httpx.Client, place: dict[str, Any]) -> None:
    url = upload(api, b"abcd")
    record = register(api, url, tag="t").json()
    assert register(api, url, tag="t").status_code == 404
    assert register(api, url, tag="t", sha256=sha256(b"abcd")).json() == record
    assert register(api, url, tag="u", sha256=sha256(b"abcd")).status_code == 409
    assert register(api, url, "2", sha256=sha256(b"abcd")).status_code == 404
    assert register(api, url, tag="t", sha256=sha256(b"other")).status_code == 404
    again = upload(api, b"abcd")
    assert register(api, again, tag="t").json() == record
    rows, removed, stored = in_database(place, uploads, garbage, objects)
    assert (len(rows), len(removed), len(stored)) == (0, 1, 1)
    assert api.get("/api/v1/model/1").content == b"abcd"


def test_equal_bytes_are_kept_once(api: httpx.Client, place: dict[str, Any]) -> None:
    api.post("/api/v1/model", data={"name": "churn", "version": "0"}, files={"file": b"abcd"})
    assert register(api, upload(api, b"abcd")).status_code == 200
    rows, removed, stored = in_database(place, uploads, garbage, objects)
    assert (len(rows), len(removed), len(stored)) == (0, 1, 1)
    assert removed[0].location not in json.dumps(stored[0].segments)
    assert api.get("/api/v1/model/2").content == b"abcd"


def test_a_dataset(serve: Start) -> None:
    with serve(kind="dataset") as api:
        dataset, data_model = os.urandom(2 * MIB), b'{"columns": []}'
        record = {"name": "churn", "version": "1", "parameters": {"rows": 3}}
        form = api.post(
            "/api/v1/dataset",
            data=record | {"version": "0", "parameters": '{"rows": 3}'},
            files={"datasetFile": dataset, "dataModelFile": data_model},
        )
        first, second = create(api, len(dataset)), upload(api, data_model)
        patch(api, first, 0, dataset[:MIB])
        patch(api, first, MIB, dataset[MIB:])
        registration = record | {"datasetFile": first, "dataModelFile": second}
        assert api.post("/api/v1/dataset", json=registration | {"dataModelFile": first}).status_code == 422
        wrong = registration | {"dataModelSha256": sha256(dataset)}
        assert api.post("/api/v1/dataset", json=wrong).status_code == 400
        digests = {"datasetSha256": sha256(dataset), "dataModelSha256": sha256(data_model)}
        answer = api.post("/api/v1/dataset", json=registration | digests)
        assert answer.json() == form.json() | {"datasetIdentifier": 2, "version": "1"}
        assert api.post("/api/v1/dataset", json=registration | digests).json() == answer.json()
        archive = api.get("/api/v1/dataset/by_id/2").content
        assert dataset in archive
        assert api.get("/api/v1/dataset/by_id/1").content == archive


def test_a_lost_connection_loses_nothing(api: httpx.Client) -> None:
    data = os.urandom(5 * MIB)
    url, place = create(api, len(data)), 0
    while place < len(data):
        with begin_patch(api, url, place, data[place : place + 2 * MIB - 7], len(data) - place) as connection:
            if place + 2 * MIB - 7 >= len(data):
                assert status_of(connection) == 204
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
        until(lambda: offset(api, url) > place)  # noqa: B023
        arrived = offset(api, url) - place
        assert min(2 * MIB - 7, len(data) - place) - arrived <= BUFFERED
        place = offset(api, url)
    assert register(api, url).json()["sha256"] == sha256(data)
    assert api.get("/api/v1/model/1").content == data


def test_with_a_checksum_all_bytes_count_or_none(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SEGMENT", 64 << 10)
    data = os.urandom(MIB)
    url = create(api, len(data))
    header = "Upload-Checksum: {}\r\n".format(checksum("sha256", data)["Upload-Checksum"])
    begin_patch(api, url, 0, data[: MIB // 2], len(data), header).close()
    assert patch(api, url, 0, data[:-1] + b"x", **checksum("sha256", data)).status_code in (423, 460)
    until(lambda: patch(api, url, 0, data[1:], **checksum("sha1", data)).status_code == 460)
    assert offset(api, url) == 0
    assert patch(api, url, 0, data, **checksum("sha256", data)).status_code == 204
    assert register(api, url).json()["sha256"] == sha256(data)


def test_a_second_request_waits_its_turn(api: httpx.Client) -> None:
    url = create(api, 4 * MIB)
    with begin_patch(api, url, 0, b"a" * MIB, 4 * MIB) as first:
        time.sleep(0.2)
        answer = patch(api, url, 0, b"b" * 4 * MIB)
        assert (answer.status_code, answer.headers["Retry-After"]) == (423, "2")
        assert offset(api, url) in (0, MIB)  # what has come may be on disk already
        first.sendall(b"a" * 3 * MIB)
        assert status_of(first) == 204
    assert register(api, url).json()["sha256"] == sha256(b"a" * 4 * MIB)


def test_a_silent_connection_gives_way(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SILENT_S", 0.2)
    url = create(api, 4 * MIB)
    with begin_patch(api, url, 0, b"a" * MIB, 4 * MIB) as first:
        time.sleep(0.5)
        assert offset(api, url) == MIB
        assert status_of(first) == 409
        assert patch(api, url, MIB, b"b" * 3 * MIB).status_code == 204
    assert register(api, url).json()["sha256"] == sha256(b"a" * MIB + b"b" * 3 * MIB)


def test_a_file_deleted_while_it_arrives(api: httpx.Client, place: dict[str, Any]) -> None:
    url = create(api, 4 * MIB)
    with begin_patch(api, url, 0, b"a" * MIB, 4 * MIB) as first:
        time.sleep(0.2)
        assert api.delete(url, headers=TUS).status_code == 204
        first.sendall(b"a" * 3 * MIB)
        assert status_of(first) == 404
    assert in_database(place, uploads, garbage) == [[], []]


def test_files_whose_time_is_over(serve: Start, place: dict[str, Any]) -> None:
    with serve(upload_expiry_hours=1 / 3600) as api:
        url, other = create(api, 10), create(api, 10)
        patch(api, url, 0, b"abcd")
        [rows] = in_database(place, uploads)
        time.sleep(1.1)
        assert api.head(url, headers=TUS).status_code == 410
        assert patch(api, url, 4, b"efghij").status_code == 410
        assert api.delete(url, headers=TUS).status_code == 410
        assert register(api, url).status_code == 410
    with serve() as api:
        young = create(api, 1)

        async def forget() -> int:
            async with Service.open(settings_of(place)) as service:
                return (await collect(service.database, service.store, grace_days=30)).uploads

        assert asyncio.run(forget()) == 2
        assert asyncio.run(forget()) == 0
        assert api.head(url, headers=TUS).status_code == 404
        assert patch(api, other, 0, b"abcd").status_code == 404
        assert offset(api, young) == 0
        left, removed = in_database(place, uploads, garbage)
        assert len(left) == 1
        segments = [segment for row in rows for segment in row.segments]
        assert [each.location for each in removed] == [location for location, _ in segments]


def test_limits(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(quota_bytes=100) as api:
        url = create(api, 60)
        answer = api.post(FILES, headers=TUS | {"Upload-Length": "41"})
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:hxmlops:problem:quota")
        patch(api, url, 0, b"x" * 60)
        assert register(api, url).status_code == 200
        assert api.post(FILES, headers=TUS | {"Upload-Length": "41"}).status_code == 507
        monkeypatch.setattr(files, "MAX_FILES", 2)
        create(api, 1), create(api, 1)
        assert api.post(FILES, headers=TUS | {"Upload-Length": "1"}).status_code == 429


def test_too_many_pieces(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SEGMENTS", 2)
    url = create(api, 3)
    assert [patch(api, url, place, b"x").status_code for place in range(3)] == [204, 204, 413]


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_hashes_are_built_again_by_another_server(serve: Start, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What is behind by more than a segment is read back while more arrives."""
    monkeypatch.setattr(files, "SEGMENT", 64 << 10)
    data = os.urandom(3 * MIB)
    with serve(kind=kind) as api:
        url = create(api, len(data))
        patch(api, url, 0, data[:MIB])
    with serve(kind=kind) as api:
        patch(api, url, MIB, data[MIB : 2 * MIB])
    with serve(kind=kind) as api:
        answer = patch(api, url, 2 * MIB, data[2 * MIB :])
        assert answer.headers["Repr-Digest"] == f"sha-256=:{in_base64(hashlib.sha256(data).digest())}:"


@pytest.mark.timeout(60)  # pytest's own: a server that spins hears of no other
def test_hashes_asked_for_in_the_moment_that_reading_back_ends(
    api: httpx.Client, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is behind what is asked for: the rest is read."""
    monkeypatch.setattr(files, "SEGMENT", 1000)
    data = os.urandom(3000)
    url = create(api, len(data))
    patch(api, url, 0, data[:2000])
    patch(api, url, 2000, data[2000:])

    async def run() -> None:
        async with Service.open(settings_of(place)) as service:
            whole = replace(await service.files.find(url[-32:], EVERYONE), sha256=None)
            behind = replace(whole, received=2000, segments=whole.segments[:1])
            ended = asyncio.get_running_loop().create_future()
            read = service.store.read

            async def reading(*place: Any) -> AsyncIterator[bytes]:
                async for block in read(*place):
                    yield block
                if not ended.done():
                    ended.set_result(None)

            monkeypatch.setattr(service.store, "read", reading)
            assert await service.files.hashes_of(behind) is None
            await ended
            assert (await service.files.hashed(whole)).sha256 == sha256(data)

    asyncio.run(run())


def test_a_complete_file_that_nobody_hashed(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last bytes were recorded, then the server died."""
    data = os.urandom(MIB)
    with serve() as api:
        url = create(api, len(data))
        patch(api, url, 0, data[:-1])
    with serve() as api, monkeypatch.context() as patched:

        async def die(*_: Any) -> None:
            raise OSError

        patched.setattr(files, "SEGMENT", 1000)
        patched.setattr(files.Files, "hashed", die)
        assert patch(api, url, len(data) - 1, data[-1:]).status_code == 500
    with serve() as api:
        assert offset(api, url) == len(data)
        assert register(api, url).json()["sha256"] == sha256(data)


def test_a_request_cancelled_at_the_server_s_end_is_recorded(api: httpx.Client, place: dict[str, Any]) -> None:
    url = create(api, 10)

    async def body(waits: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"abcd"
        waits.set()
        await asyncio.sleep(60)
        yield b"efghij"

    async def run() -> None:
        async with Service.open(settings_of(place)) as service:
            waits = asyncio.Event()
            receiving = asyncio.create_task(service.files.receive(url[-32:], EVERYONE, 0, body(waits)))
            await waits.wait()
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving

    asyncio.run(run())
    assert offset(api, url) == 4


@pytest.fixture(scope="module")
def one_api(start_in: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with start_in(tmp_path_factory.mktemp("hypothesis")) as client:
        yield client


STEPS = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["whole", "in chunks", "lost", "checksum", "wrong"])), max_size=5
)


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(max_size=6000), steps=STEPS)
def test_any_way_of_sending_gives_the_same_artifact(
    one_api: httpx.Client, monkeypatch: pytest.MonkeyPatch, data: bytes, steps: list[tuple[int, str]]
) -> None:
    monkeypatch.setattr(files, "SEGMENT", 1500)
    url, sent = create(one_api, len(data)), 0
    for size, way in [*steps, (len(data), "whole")]:
        place = offset(one_api, url)
        assert place <= sent
        piece = data[place : place + size]
        if way == "lost":
            piece = piece[:-1]
            begin_patch(one_api, url, place, piece, len(piece) + 1 if data[place:] else 0).close()
        elif way == "wrong":
            answer = resume(one_api, url, data, size, headers=checksum("sha1", b"other"))
            assert answer.status_code == 460
        elif way == "in chunks":
            assert resume(one_api, url, data, size, in_chunks=True).status_code == 204
        elif way == "checksum":
            assert resume(one_api, url, data, size, checked=True).status_code == 204
        else:
            assert resume(one_api, url, data, size).status_code == 204
        sent = max(sent, place + len(piece), offset(one_api, url))
    answer = register(one_api, url, secrets.token_hex(8))
    assert answer.json()["sha256"] == sha256(data)
    bytes_ = one_api.get(f"/api/v1/model/{answer.json()['modelIdentifier']}")
    assert (bytes_.status_code, bytes_.content) == (200, data)
