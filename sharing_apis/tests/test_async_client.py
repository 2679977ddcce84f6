"""What only the client for asyncio can do: several calls at once, calls that are given up, a loop that goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from wires import Hostile, answer, parts

from hxmlops_evidence.digests import sha256_file
from hxmlops_sharing.async_client import AsyncSharingClient
from hxmlops_sharing.client import SharingClient

type Start = Callable[..., AbstractContextManager[httpx.Client]]

MIB = 1 << 20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.tar"
    path.write_bytes(bytes(range(256)) * (64 * MIB // 256))
    return path


async def upload(client: AsyncSharingClient, file: Path, version: str = "1", **named: Any) -> dict[str, Any]:
    return await client.upload_model(
        file, name="churn", version=version, status="staging", library="", library_version="", domain="", tag="",
        parameters={}, characteristics={}, **named,
    )  # fmt: skip


async def longest_stall(work: Awaitable[Any]) -> float:
    """Seconds for which nothing else could run while this was done."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - began)

    watching = asyncio.create_task(watch())
    try:
        await work
    finally:
        watching.cancel()
    return longest


def test_both_clients_have_the_same_calls() -> None:
    ours = {name for name in dir(SharingClient) if not name.startswith("_")} - {"calls"}
    assert ours | {"url"} == {name for name in dir(AsyncSharingClient) if not name.startswith("_")}


def test_many_calls_at_once(models: httpx.Client, tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * (3 * MIB + number))

    async def main() -> None:
        async with AsyncSharingClient(str(models.base_url), None, resumable_from=3 * MIB + 4) as client:
            records = await asyncio.gather(*(upload(client, file, file.name) for file in files))
            assert [record["sha256"] for record in records] == [sha256_file(file) for file in files]
            targets = [tmp_path / "got" / file.name for file in files]
            digests = [record["sha256"] for record in records]
            await asyncio.gather(*map(client.download_artifact, digests, targets))
            assert [sha256_file(target) for target in targets] == digests
            assert {each["version"] for each in await client.catalog("model")} == {file.name for file in files}

    asyncio.run(main())


def test_the_loop_goes_on_meanwhile(models: httpx.Client, large: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSharingClient(str(models.base_url), None) as client:
            assert await longest_stall(upload(client, large)) < 0.1
            record = (await client.catalog("model"))[0]
            assert await longest_stall(client.download_artifact(record["sha256"], tmp_path / "got")) < 0.1
        async with AsyncSharingClient(str(models.base_url), None, resumable_from=1) as client:
            assert await longest_stall(upload(client, large, "2")) < 0.1

    asyncio.run(main())


def test_a_download_that_is_given_up_goes_on_later(models: httpx.Client, large: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSharingClient(str(models.base_url), None) as client:
            sha256 = (await upload(client, large))["sha256"]
            begun = asyncio.Event()
            target = tmp_path / "got" / "it"
            task = asyncio.create_task(client.download_artifact(sha256, target, progress=lambda *_: begun.set()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            [part] = parts(target.parent)
            size = part.stat().st_size
            assert 0 < size < large.stat().st_size
            await asyncio.sleep(0.05)
            assert part.stat().st_size == size  # nobody writes it any more
            told: list[int] = []
            await client.download_artifact(sha256, target, progress=lambda done, _: told.append(done))
            assert told[0] > size
            assert sha256_file(target) == sha256

    asyncio.run(main())


def test_an_upload_that_is_given_up_goes_on_later(models: httpx.Client, large: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSharingClient(str(models.base_url), None, resumable_from=1) as client:
            begun = asyncio.Event()

            def progress(done: int, _: int | None) -> None:
                if done > 20 * MIB:
                    begun.set()

            task = asyncio.create_task(upload(client, large, resume=tmp_path / "noted", progress=progress))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            told: list[int] = []
            record = await upload(client, large, resume=tmp_path / "noted", progress=lambda done, _: told.append(done))
            assert told[0] > 10 * MIB
            assert record["sha256"] == sha256_file(large)

    asyncio.run(main())


def test_a_call_can_have_a_time_limit() -> None:
    async def main(url: str) -> None:
        async with AsyncSharingClient(url, None) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.catalog("model")

    server = Hostile(answer(b'{"detail": "busy"}', "503 Service Unavailable", Retry_After=30))
    with server.serving() as url:
        asyncio.run(main(url))
