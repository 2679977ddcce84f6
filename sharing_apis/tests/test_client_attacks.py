"""The clients against servers and lines that mean no good: nothing wrong gets its name, nothing goes on for ever."""

import gzip
import io
import logging
import os
import socket
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from wires import CLIENTS, Hostile, answer, parts, refused

from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_sharing.client import SharingError, WrongBytes

pytestmark = pytest.mark.parametrize("client_class", CLIENTS)

DATA = os.urandom(300_000)
DIGEST = sha256_bytes(DATA)
ETAG = '"one"'

type ClientClass = Callable[..., Any]


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxmlops_sharing.calls.patience.CALL_PAUSES_S", (0, 0))
    monkeypatch.setattr("hxmlops_sharing.calls.patience.TRANSFER_PAUSES_S", (0, 0, 0))
    monkeypatch.setattr("hxmlops_sharing.calls.patience.RECEIPT_PAUSES_S", (0, 0))


def download(client_class: ClientClass, server: Hostile, target: Path, **named: Any) -> None:
    with server.serving() as url, client_class(url, None, stall_s=named.pop("stall_s", 5)) as client:
        client.download_artifact(DIGEST, target, **named)


def whole() -> bytes:
    return answer(DATA, ETag=ETAG)


def rest(start: int, etag: str = ETAG) -> bytes:
    return answer(
        DATA[start:], "206 Partial Content", ETag=etag, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
    )


def cut(at: int, etag: str = ETAG) -> bytes:
    return answer(DATA[:at], length=len(DATA), ETag=etag)


# Downloads that break off


def test_a_download_goes_on_where_it_was_cut(client_class: ClientClass, tmp_path: Path) -> None:
    server = Hostile(cut(100_000), answer(DATA[100_000:200_000], "206 Partial Content", length=200_000, ETag=ETAG,
                     Content_Range="bytes 100000-299999/300000"), rest(200_000))  # fmt: skip
    download(client_class, server, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    assert server.headers("Range") == [None, "bytes=100000-", "bytes=200000-"]
    assert server.headers("If-Range") == [None, ETAG, ETAG]
    assert os.listdir(tmp_path) == ["got"]  # noqa: PTH208


def test_a_download_goes_on_in_another_process(client_class: ClientClass, tmp_path: Path) -> None:
    with refused(None, "broke off after 100000 of 300000 bytes"):
        download(client_class, Hostile(cut(100_000), b""), tmp_path / "got")
    [part] = parts(tmp_path)
    assert part.read_bytes() == DATA[:100_000]
    assert part.stat().st_mode & 0o777 == 0o600
    server = Hostile(rest(100_000))
    download(client_class, server, tmp_path / "got")
    assert server.headers("Range") == ["bytes=100000-"]
    assert (tmp_path / "got").read_bytes() == DATA
    assert parts(tmp_path) == []


def test_other_bytes_under_the_name_are_fetched_anew(client_class: ClientClass, tmp_path: Path) -> None:
    """The server has changed what it gives meanwhile, which If-Range tells it to say."""
    server = Hostile(answer(b"x" * 100_000, length=300_000, ETag='"old"'), whole())
    download(client_class, server, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


@pytest.mark.parametrize(
    "odd",
    [
        rest(100_000, etag='"two"'),
        rest(100_001),
        rest(99_999),
        answer(DATA[100_000:], "206 Partial Content", ETag=ETAG),
        answer(DATA[100_000:], "206 Partial Content", ETag=ETAG, Content_Range="bytes 100000-299999/300001"),
        answer(DATA[100_000:], "206 Partial Content", ETag=ETAG, Content_Range="bytes 100000-299998/300000"),
        answer(DATA[100_000:], "206 Partial Content", ETag=ETAG, Content_Range="bytes garbage"),
        answer(b"", "416 Range Not Satisfiable", Content_Range="bytes */7"),
        answer(b"", "416 Range Not Satisfiable"),
    ],
    ids=["etag", "gap", "overlap", "no range", "other total", "other end", "garbage", "416", "416 bare"],
)
def test_what_does_not_go_on_from_there_is_not_appended(client_class: ClientClass, odd: bytes, tmp_path: Path) -> None:
    server = Hostile(cut(100_000), odd, whole())
    download(client_class, server, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    assert server.headers("Range") == [None, "bytes=100000-", None]


def test_all_was_there_already(client_class: ClientClass, tmp_path: Path) -> None:
    with refused(None, "broke off"):
        download(client_class, Hostile(answer(DATA, length=300_001), b""), tmp_path / "got")
    server = Hostile(answer(b"", "416 Range Not Satisfiable", Content_Range="bytes */300000"))
    download(client_class, server, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_a_beginning_that_was_spoilt_is_fetched_anew(client_class: ClientClass, tmp_path: Path) -> None:
    with refused(None, "broke off"):
        download(client_class, Hostile(cut(100_000), b""), tmp_path / "got")
    [part] = parts(tmp_path)
    part.write_bytes(bytes(100_000))
    server = Hostile(rest(100_000), whole())
    download(client_class, server, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_a_server_that_always_breaks_off_is_given_up(client_class: ClientClass, tmp_path: Path) -> None:
    server = Hostile(cut(1000), b"")
    with refused(None, "broke off after 1000 of 300000 bytes"):
        download(client_class, server, tmp_path / "got")
    assert len(server.requests) == 4


def test_progress_that_is_undone_again_does_not_go_on_for_ever(client_class: ClientClass, tmp_path: Path) -> None:
    """Each answer brings enough to go on, but begins anew, so that the whole never gets there."""
    answers = [cut(100_000, f'"{number}"') for number in range(50)]
    server = Hostile(*answers)
    with refused(None, "broke off"):
        download(client_class, server, tmp_path / "got")
    assert len(server.requests) < 10


def test_a_slow_drip_is_cut_off(client_class: ClientClass, tmp_path: Path) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)

    began = time.monotonic()
    with refused(None, "bytes came in 0.2 s"):
        download(client_class, Hostile(drip), tmp_path / "got", stall_s=0.2)
    assert time.monotonic() - began < 20
    with Hostile(drip).serving() as url, client_class(url, None, stall_s=0.2) as client, refused(None, "cannot be"):
        client.catalog("model")


def test_silence_is_cut_off(client_class: ClientClass, tmp_path: Path) -> None:
    def silence(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + DATA[:1000])
        time.sleep(0.5)

    with refused(None, "broke off after 1000 of 300000 bytes"):
        download(client_class, Hostile(silence), tmp_path / "got", stall_s=0.1)


# Downloads of wrong bytes


@pytest.mark.parametrize(
    "wrong",
    [
        answer(DATA[:-1] + bytes([DATA[-1] ^ 1])),
        answer(DATA[:-1]),
        answer(DATA + b"x"),
        answer(b""),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nother\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ],
    ids=["flipped", "short", "long", "empty", "chunked", "until closed"],
)
def test_wrong_bytes_get_no_name(client_class: ClientClass, wrong: bytes, tmp_path: Path) -> None:
    (tmp_path / "got").write_bytes(b"what was there")
    with refused(None, f"answered other bytes than {DIGEST}: use none of them", WrongBytes):
        download(client_class, Hostile(wrong), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"what was there"
    assert parts(tmp_path) == []


def test_more_than_was_said_is_not_read(client_class: ClientClass, tmp_path: Path) -> None:
    download(client_class, Hostile(answer(DATA + b"x" * 100_000, length=300_000)), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def test_an_endless_body_is_cut_off(client_class: ClientClass, tmp_path: Path) -> None:
    with refused(None, "sends more than 1000000 bytes: it was cut off"):
        download(client_class, Hostile(endless), tmp_path / "got", max_bytes=1_000_000)
    assert sum(part.stat().st_size for part in parts(tmp_path)) <= 1_000_000
    with refused(None, "announces 300000 bytes, more than the 1000 allowed here"):
        download(client_class, Hostile(whole()), tmp_path / "other", max_bytes=1000)


def test_an_endless_record_is_cut_off(client_class: ClientClass, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxmlops_sharing.calls.link.MAX_JSON", 2 << 20)
    with Hostile(endless).serving() as url, client_class(url, None) as client, refused(None, "answers more than 2 MiB"):
        client.catalog("model")


def test_an_endless_error_is_cut_off(client_class: ClientClass) -> None:
    def endless_error(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with Hostile(endless_error).serving() as url, client_class(url, None) as client, refused(400, "400: no reason"):
        client.catalog("model")


def test_more_than_the_disk_holds_is_not_begun(client_class: ClientClass, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as error:
        download(client_class, Hostile(answer(b"x", length=1 << 39)), tmp_path / "got")
    assert error.value.errno == 28
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_disk_that_gets_full_is_told(
    client_class: ClientClass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hxmlops_sharing.calls.partial.Partial.write", full)
    with pytest.raises(OSError, match=r"No space left on device.*\.got\."):
        download(client_class, Hostile(whole()), tmp_path / "got")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_folder_that_cannot_be_written_is_told(client_class: ClientClass, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file") as error:
        download(client_class, Hostile(whole()), tmp_path / "file" / "got")
    assert "\n" not in str(error.value)


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(client_class: ClientClass, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".got.{DIGEST[7:23]}.part").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        download(client_class, Hostile(whole()), tmp_path / "got")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_gzip_bomb_is_not_unpacked(client_class: ClientClass, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    tracemalloc.start()
    try:
        for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
            with refused(None, "answers with the encoding"):
                download(client_class, Hostile(answer(bomb, Content_Encoding=encoding)), tmp_path / "got")
        server = Hostile(answer(bomb, Content_Encoding="gzip"))
        with server.serving() as url, client_class(url, None) as client, refused(None, "with the encoding gzip"):
            client.catalog("model")
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
    assert server.headers("Accept-Encoding") == ["identity"]
    assert parts(tmp_path) == []


# Datasets: zip files


def zip_bytes(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


GOOD = (("dataset", b"d" * 1000), ("dataModel", b"{}"))


def tar_bytes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("dataset", "../../slipped"):
            entry = tarfile.TarInfo(name)
            entry.size = 1000
            archive.addfile(entry, io.BytesIO(b"d" * 1000))
    return file.getvalue()


def with_header(offset: int, form: str, value: int) -> bytes:
    """The good zip file with another number in its first local header."""
    data = bytearray(zip_bytes(*GOOD))
    struct.pack_into(form, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    "slip",
    [
        zip_bytes(("../dataset", b"d" * 1000), ("dataModel", b"{}")),
        zip_bytes(("../../slipped", b"d"), *GOOD),
        zip_bytes(*GOOD, ("../../slipped", b"d")),
        zip_bytes(("/tmp/slipped", b"d" * 1000), ("dataModel", b"{}")),  # noqa: S108
        zip_bytes(("dataset/../../slipped", b"d" * 1000), ("dataModel", b"{}")),
        zip_bytes(*GOOD).replace(b"dataset", b"datase\0"),
        zip_bytes(("Dataset", b"d" * 1000), ("dataModel", b"{}")),
        zip_bytes(("dataset", b"d" * 1000)),
        zip_bytes(("dataset", b"d" * 1000), ("datasex", b"{}")).replace(b"datasex", b"dataset"),
        zip_bytes(*GOOD, compression=zipfile.ZIP_DEFLATED),
        zip_bytes(("dataset", bytes(200 << 20)), ("dataModel", b"{}"), compression=zipfile.ZIP_DEFLATED),
        zip_bytes(("dataset", b"D" * 1000), ("dataModel", b"{}")),
        zip_bytes(("dataset", b"d" * 999), ("dataModel", b"{}")),
        zip_bytes(*GOOD)[:1080],
        zip_bytes(*GOOD)[:900],
        zip_bytes(*GOOD) + b"x" * 10_000,
        with_header(6, "<H", 1),
        with_header(6, "<H", 8),
        with_header(8, "<H", 8),
        with_header(18, "<L", 999),
        with_header(18, "<L", 0xFFFFFFFF),
        with_header(22, "<L", 0xFFFFFFFF),
        with_header(26, "<H", 0xFFFF),
        with_header(28, "<H", 0xFFFF),
        tar_bytes(),
        b"",
        b"PK",
    ],
    ids=lambda slip: str(len(slip)),
)
def test_no_file_slips_out_of_a_dataset(client_class: ClientClass, slip: bytes, tmp_path: Path) -> None:
    digests = {"dataset": sha256_bytes(b"d" * 1000), "dataModel": sha256_bytes(b"{}")}
    record = {
        "sha256": digest_of(digests),
        "datasetSha256": digests["dataset"],
        "dataModelSha256": digests["dataModel"],
    }
    (tmp_path / "a" / "b").mkdir(parents=True)
    with (
        Hostile(answer(slip)).serving() as url,
        client_class(url, None) as client,
        refused(None, "answered another dataset than sha256:", WrongBytes),
    ):
        client.download_dataset(record, tmp_path / "a" / "b" / "got")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_dataset_as_it_should_be(client_class: ClientClass, tmp_path: Path) -> None:
    record = {
        "sha256": "sha256:" + "a" * 64,
        "datasetSha256": sha256_bytes(GOOD[0][1]),
        "dataModelSha256": sha256_bytes(GOOD[1][1]),
    }
    with Hostile(answer(zip_bytes(*GOOD))).serving() as url, client_class(url, None) as client:
        client.download_dataset(record, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict(GOOD)


# Redirects


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("our-secret-token")
    return path


def redirect(to: str, status: str = "307 Temporary Redirect") -> bytes:
    return answer(b"", status, Location=to)


def test_a_redirect_elsewhere_is_followed_without_the_token(
    client_class: ClientClass, token: Path, tmp_path: Path
) -> None:
    store = Hostile(cut(100_000).replace(b"ETag", b"X-HXMLOps-Receipt: /of/another/7\r\nETag"), rest(100_000))
    with store.serving() as store_url:
        location = f"{store_url}/bucket/key?X-Amz-Signature=secret"
        api = Hostile(
            answer(b"", "307 Temporary Redirect", Location=location, X_HXMLOps_Receipt="/api/v1/receipts/5"),
            answer(b"", "307 Temporary Redirect", Location=location),
        )
        with api.serving() as url, client_class(url, token) as client:
            got = client.download_artifact(DIGEST, tmp_path / "got")
    assert got.receipts == ("/api/v1/receipts/5",)
    assert (tmp_path / "got").read_bytes() == DATA
    assert api.headers("Authorization") == ["Bearer our-secret-token"] * 2
    assert store.headers("Authorization") == [None, None]
    assert store.headers("Range") == [None, "bytes=100000-"]
    assert store.headers("If-Range") == [None, ETAG]


def test_a_redirect_at_home_keeps_the_token(client_class: ClientClass, token: Path, tmp_path: Path) -> None:
    api = Hostile(redirect("/elsewhere"), whole())
    with api.serving() as url, client_class(url, token) as client:
        client.download_artifact(DIGEST, tmp_path / "got")
    assert api.headers("Authorization") == ["Bearer our-secret-token"] * 2


def test_who_was_elsewhere_comes_home_without_the_token(client_class: ClientClass, token: Path, tmp_path: Path) -> None:
    """Or another host could make us do with our token what it likes."""
    with Hostile(b"").serving() as nobody:
        api = Hostile(redirect(nobody))
        with api.serving() as url:
            stranger = Hostile(redirect(f"{url}/api/v1/anything"))
            with stranger.serving() as stranger_url:
                api._answers[:] = [redirect(stranger_url), whole()]
                with client_class(url, token) as client:
                    client.download_artifact(DIGEST, tmp_path / "got")
    assert api.headers("Authorization") == ["Bearer our-secret-token", None]


@pytest.mark.parametrize(
    ("to", "shown"),
    [
        ("file:///etc/passwd", "file://None"),
        ("ftp://host/x", "ftp://host"),
        ("gopher://host/x", "gopher://host"),
        ("//", "http://127.0.0.1"),
        ("http://user:password@host/", "http://host"),
        ("http://[", "://None"),
        ("javascript:alert(1)", "javascript://None"),
        ("data:text/plain,x", "data://None"),
    ],
)
def test_a_redirect_to_where_we_do_not_go(client_class: ClientClass, to: str, shown: str, tmp_path: Path) -> None:
    with refused(None, f"redirects to {shown}, which is not followed" if to != "//" else "redirects"):
        download(client_class, Hostile(redirect(to)), tmp_path / "got")


def test_a_loop_of_redirects_ends(client_class: ClientClass, tmp_path: Path) -> None:
    server = Hostile(redirect("/again"))
    with refused(None, "redirects more than 3 times"):
        download(client_class, server, tmp_path / "got")
    assert len(server.requests) == 4


def test_what_is_sent_is_not_redirected(client_class: ClientClass, token: Path, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"model")
    with Hostile(b"").serving() as other, Hostile(redirect(f"{other}/?secret")).serving() as url:
        with client_class(url, token) as client, refused(None, "is redirected to http://127.0.0.1: use that url"):
            client.set_characteristics(1, {})
        with client_class(url, token) as client, refused(None, "is redirected to http://127.0.0.1: use that url"):
            client.upload_model(
                tmp_path / "model", name="a", version="1", status="", library="", library_version="",
                domain="", tag="", parameters={}, characteristics={},
            )  # fmt: skip


# What servers say


@pytest.mark.parametrize(
    "garbage",
    [b"{", b"[]", b"null", b'{"models": {}}', b'{"models": [1]}', b"\xff\xfe", b"[" * 100_000, b'"models"'],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_for_json(client_class: ClientClass, garbage: bytes) -> None:
    with (
        Hostile(answer(garbage)).serving() as url,
        client_class(url, None) as client,
        refused(None, "is this a sharing API?"),
    ):
        client.catalog("model")


def test_garbage_for_records(client_class: ClientClass) -> None:
    with Hostile(answer(b"[]")).serving() as url, client_class(url, None) as client:
        for name, arguments in (
            ("record", ("model", 1)),
            ("versions", ("dataset", 1)),
            ("aliases", ("a",)),
            ("set_alias", ("a", "champion", 1)),
            ("receipt", ("/api/v1/receipts/1",)),
        ):
            with refused(None, "is this a sharing API?"):
                getattr(client, name)(*arguments)


def test_a_catalogue_without_end(client_class: ClientClass) -> None:
    """A server whose next page is never behind the one before."""
    server = Hostile(answer(b'{"models": [{}]}', Link='</api/v1/model_catalog?after=5>; rel="next"'))
    with server.serving() as url, client_class(url, None) as client:
        assert client.catalog("model") == [{}, {}]
    assert [request.split()[1][-8:] for request in server.requests] == ["&after=0", "&after=5"]


def test_a_catalogue_that_only_grows(client_class: ClientClass, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxmlops_sharing.calls.api.MAX_RECORDS", 5)
    link = '</?after={}>; rel="next"'
    pages = [answer(b'{"models": [{}, {}]}', Link=link.format(after)) for after in range(1, 9)]
    with (
        Hostile(*pages).serving() as url,
        client_class(url, None) as client,
        refused(None, "lists more than 5 versions: ask for a name or a tag"),
    ):
        client.catalog("model")
    with Hostile(answer(b'{"models": []}', Link=link.format(9))).serving() as url, client_class(url, None) as client:
        assert client.catalog("model") == []


def test_a_next_page_elsewhere_is_asked_for_at_home(client_class: ClientClass, token: Path) -> None:
    server = Hostile(
        answer(b'{"models": [{}]}', Link='<http://169.254.169.254/latest?after=5>; rel="next"'),
        answer(b'{"models": []}'),
    )
    with server.serving() as url, client_class(url, token) as client:
        assert client.catalog("model") == [{}]
    assert len(server.requests) == 2


def test_errors_are_harmless_lines(client_class: ClientClass, token: Path) -> None:
    detail = "\\u001b[2Jcleared\\nour-secret-token\\u202e" + "x" * 5000
    server = Hostile(answer(f'{{"detail": "{detail}"}}'.encode(), "400 Bad Request", X_Request_Id="\x1b[31m"))
    with server.serving() as url, client_class(url, token) as client, pytest.raises(SharingError) as error:
        client.catalog("model")
    text = str(error.value)
    assert text.isprintable()
    assert "our-secret-token" not in text + error.value.detail
    assert len(text) < 1200


def test_the_token_is_told_to_nobody(
    client_class: ClientClass, token: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Hostile(answer(b"{}", "401 Unauthorized")).serving() as url, client_class(url, token) as client:
        with pytest.raises(SharingError) as error:
            client.catalog("model")
        with suppress(SharingError):
            client.download_artifact(DIGEST, tmp_path / "got")
        shown = repr(client) + str(vars(client)) + repr(error.value) + caplog.text
    assert "our-secret-token" not in shown


@pytest.mark.parametrize("name", ["..", "../model", "a/../../x", "a?x=1", "a#x", "a\r\nX: y", "http://host/", "", "ä"])
def test_names_lead_nowhere_else(client_class: ClientClass, name: str, tmp_path: Path) -> None:
    """What comes from a record or a person and becomes part of a url."""
    server = Hostile(answer(b'{"aliases": []}'))
    with server.serving() as url, client_class(url, None) as client:
        with refused(None, "is no digest"):
            client.download_artifact(name, tmp_path / "got")
        with refused(None, "is no digest"):
            client.download_dataset({"sha256": name, "datasetSha256": "", "dataModelSha256": ""}, tmp_path / "got")
        with refused(None, "is no alias"):
            client.set_alias("a", name, 1)
        with refused(None, "names no receipt"):
            client.receipt(name)
        with pytest.raises(ValueError, match="invalid literal"):
            client.record("model", name)
        client.aliases(name)
    assert all(request.startswith("GET /api/v1/aliases?name=") for request in server.requests)
    assert all("X: y" not in request for request in server.requests)


def test_urls_that_are_none(client_class: ClientClass) -> None:
    for url in (
        "host:8080",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://[",
        "http://a b",
        "http://h:99999999",
    ):
        with refused(None, "give a url like https://host:8080"):
            client_class(url, None)
    for url in ("http://user:hidden@host", "http://host/?token=hidden"):
        with pytest.raises(SharingError) as error:
            client_class(url, None)
        assert "hidden" not in str(error.value)


# Servers that are busy


def test_busy_servers_are_asked_again(client_class: ClientClass, tmp_path: Path) -> None:
    for status in ("429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway", "504 Gateway Timeout"):
        server = Hostile(answer(b'{"detail": "busy"}', status, Retry_After=0), answer(b'{"models": []}'))
        with server.serving() as url, client_class(url, None) as client:
            assert client.catalog("model") == []
        server = Hostile(answer(b'{"detail": "busy"}', status), whole())
        download(client_class, server, tmp_path / "got")


def test_retry_after_is_honoured_within_bounds(client_class: ClientClass) -> None:
    server = Hostile(answer(b"{}", "429 Too Many Requests", Retry_After=1), answer(b'{"models": []}'))
    with server.serving() as url, client_class(url, None) as client:
        began = time.monotonic()
        client.catalog("model")
        assert 0.9 < time.monotonic() - began < 5
    for asked in ("3600", "Fri, 31 Dec 2999 23:59:59 GMT"):
        server = Hostile(answer(b'{"detail": "come back later"}', "429 Too Many Requests", Retry_After=asked))
        with server.serving() as url, client_class(url, None) as client, refused(429, "429: come back later"):
            client.catalog("model")
        assert len(server.requests) == 1
    for garbage in ("-5", "soon", "9" * 50):
        server = Hostile(answer(b"{}", "429 Too Many Requests", Retry_After=garbage), answer(b'{"models": []}'))
        with server.serving() as url, client_class(url, None) as client:
            assert client.catalog("model") == []


# Uploads


def upload(client: Any, file: Path, **named: Any) -> dict[str, Any]:
    record: dict[str, Any] = client.upload_model(
        file, name="a", version="1", status="staging", library="", library_version="", domain="", tag="",
        parameters={}, characteristics={}, **named,
    )  # fmt: skip
    return record


def test_a_record_of_other_bytes_is_told(client_class: ClientClass, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)
    server = Hostile(answer(b'{"modelIdentifier": 1, "sha256": "sha256:other"}'))
    with server.serving() as url, client_class(url, None) as client, refused(None, "recorded sha256:other for"):
        upload(client, tmp_path / "model")


def test_a_file_that_changes_while_it_is_sent(client_class: ClientClass, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(5 << 20))

    def shrink(*_: object) -> None:
        os.truncate(model, 3 << 20)

    def read_all(connection: socket.socket) -> None:
        while connection.recv(1 << 20):
            pass

    with (
        Hostile(read_all).serving() as url,
        client_class(url, None) as client,
        refused(None, "was changed while it was sent"),
    ):
        upload(client, model, progress=shrink)


def tus_offer(*answers: bytes | Callable[[socket.socket], None]) -> Hostile:
    return Hostile(answer(b"", "204 No Content", length=0, Tus_Version="1.0.0"), *answers)


@pytest.mark.parametrize("location", ["", "/", "http://host/..", "/api/v1/files/a?x=1/..", "/files/" + "a" * 200, "/ä"])
def test_an_upload_without_a_name(client_class: ClientClass, location: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)
    server = tus_offer(answer(b"", "201 Created", Location=location))
    with (
        server.serving() as url,
        client_class(url, None, resumable_from=1) as client,
        refused(None, "names no upload"),
    ):
        upload(client, tmp_path / "model")


def test_an_upload_elsewhere_is_sent_home(client_class: ClientClass, token: Path, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"")
    server = tus_offer(
        answer(b"", "201 Created", Location="http://169.254.169.254/files/abc"),
        answer(f'{{"modelIdentifier": 1, "sha256": "{sha256_bytes(b"")}"}}'.encode()),
    )
    with server.serving() as url, client_class(url, token, resumable_from=0) as client:
        upload(client, tmp_path / "model")
    assert [request.split()[0] for request in server.requests] == ["OPTIONS", "POST", "POST"]


@pytest.mark.parametrize("offset", ["", "-1", "300001", "garbage", "9" * 30])
def test_an_offset_that_is_none(client_class: ClientClass, offset: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)

    def take(connection: socket.socket) -> None:
        connection.sendall(answer(b"", "204 No Content", length=0, Upload_Offset=offset))

    server = tus_offer(answer(b"", "201 Created", Location="/files/abc"), take)
    with (
        server.serving() as url,
        client_class(url, None, resumable_from=1) as client,
        refused(None, "names no offset within the file"),
    ):
        upload(client, tmp_path / "model")


def test_an_upload_that_is_always_lost_is_given_up(client_class: ClientClass, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)
    pair = [answer(b"", "201 Created", Location="/files/abc"), answer(b"", "404 Not Found")]
    server = tus_offer(*pair * 20)
    with server.serving() as url, client_class(url, None, resumable_from=1) as client, refused(None, "did not take"):
        upload(client, tmp_path / "model")
    assert len(server.requests) < 15


def test_a_note_of_unfinished_uploads_that_is_damaged(client_class: ClientClass, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"")
    for noted in (b"", b"[]", b"{", b'{"url": 1}', b'{"url": "URL", "uploads": {"x": "../.."}}', b"\xff"):
        (tmp_path / "noted").write_bytes(noted)
        server = tus_offer(answer(b"", "201 Created", Location="/files/abc"), answer(b'{"modelIdentifier": 1}'))
        with server.serving() as url, client_class(url, None, resumable_from=0) as client:
            upload(client, tmp_path / "model", resume=tmp_path / "noted")
        assert not (tmp_path / "noted").exists()
