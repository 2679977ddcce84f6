"""What a client of resumable uploads sends, a request at a time, and what of it is recorded."""

import asyncio
import base64
import hashlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
from faults import BYTES, TUS
from sqlalchemy import select

from hxmlops_sharing.database import Database
from hxmlops_sharing.settings import Settings, read_settings

FILES = "/api/v1/files"


def create(api: httpx.Client, size: int, **headers: str) -> str:
    answer = api.post(FILES, headers=TUS | {"Upload-Length": str(size)} | headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def patch(api: httpx.Client, url: str, offset: int, data: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    return api.patch(url, content=data, headers=BYTES | {"Upload-Offset": str(offset)} | headers)


def offset(api: httpx.Client, url: str) -> int:
    answer = api.head(url, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def upload(api: httpx.Client, data: bytes) -> str:
    """A file that is all there."""
    url = create(api, len(data))
    assert patch(api, url, 0, data).status_code == 204
    return url


def resume(
    api: httpx.Client,
    url: str,
    data: bytes,
    size: int,
    *,
    in_chunks: bool = False,
    checked: bool = False,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Send `size` bytes more, as a client does whose connection broke: the server may not know of that yet."""
    for _ in range(1000):
        place = offset(api, url)
        piece = data[place : place + size]
        more = checksum("sha256", piece) if checked else headers or {}
        answer = patch(api, url, place, iter([piece[:7], piece[7:]]) if in_chunks else piece, **more)
        if answer.status_code not in (409, 423):
            return answer
        time.sleep(0.01)
    raise TimeoutError


def register(api: httpx.Client, url: str, version: str = "1", **more: Any) -> httpx.Response:
    return api.post("/api/v1/model", json={"name": "churn", "version": version, "file": url, **more})


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def checksum(algorithm: str, data: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {in_base64(hashlib.new(algorithm, data).digest())}"}


def begin_patch(api: httpx.Client, url: str, offset: int, data: bytes, length: int, more: str = "") -> socket.socket:
    """Begin a PATCH of `length` bytes with `data`; the server waits for the rest."""
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    connection.settimeout(30)
    connection.sendall(
        f"PATCH {url} HTTP/1.1\r\nHost: a\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n{more}"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n".encode()
        + data
    )
    return connection


def in_database(place: dict[str, Any], *tables: Any) -> list[list[Any]]:
    """All rows of these tables."""

    async def read() -> list[list[Any]]:
        database = Database(settings_of(place))
        try:
            async with database.read() as connection:
                return [list(await connection.execute(select(table))) for table in tables]
        finally:
            await database.close()

    return asyncio.run(read())


def settings_of(place: dict[str, Any]) -> Settings:
    return read_settings(kind="model", auth="none", port=0, **place)
