"""Garbage collection: what nothing refers to goes, what anything refers to stays, whatever happens meanwhile."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from hxmlops_sharing import audit
from hxmlops_sharing.__main__ import main
from hxmlops_sharing.access import EVERYONE
from hxmlops_sharing.collect import Collected, collect
from hxmlops_sharing.records import ModelMetadata
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings
from hxmlops_sharing.store import Segment
from hxmlops_sharing.tables import garbage, models, objects, uploads
from hxmlops_sharing.times import now, shifted

ALL_BACKENDS = True
AT_ONCE: dict[str, Any] = {"grace_days": 0, "settle_s": 0, "orphan_s": 0}

type Backend = Callable[[], dict[str, Any]]


@pytest.fixture
def settings(backend: Backend, tmp_path: Path) -> Settings:
    places = {"database": str(tmp_path / "records.sqlite"), "store": str(tmp_path / "store")}
    return read_settings(kind="model", auth="none", **places | backend())


def in_service(settings: Settings, work: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Service.open(settings) as service:
            await work(service)

    asyncio.run(run())


def environment(settings: Settings) -> dict[str, str]:
    return {
        f"HXMLOPS_SHARING_{name.upper()}": str(getattr(value, "get_secret_value", lambda value=value: value)())
        for name, value in settings
        if name in settings.model_fields_set
    }


async def publish(service: Service, name: str, data: bytes = b"bytes") -> int:
    incoming = service.receiver.incoming()
    await incoming.write(data)
    content = await incoming.finish()
    contents = {"sha256": content.sha256, "size": content.size}
    metadata = ModelMetadata.model_validate({"name": name, "version": "1"}).columns()
    try:
        row = await service.registry.add(metadata, contents, [incoming], EVERYONE, "test")
    finally:
        await incoming.discard()
    return int(row.id)


async def bytes_of(service: Service, identifier: int) -> bytes:
    row = await service.registry.find(identifier, None, EVERYONE)
    found = b""
    for segments in await service.registry.segments(row.sha256):
        for segment in segments:
            async for block in service.store.read(segment.location, 0, segment.size):
                found += block
    return found


async def stored(service: Service) -> set[str]:
    return {segment.location async for segment in service.store.list(older_than_s=0)}


async def count(service: Service, table: Any) -> int:
    async with service.database.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def collected(service: Service, **given: Any) -> Collected:
    return await collect(service.database, service.store, **AT_ONCE | given)


@contextlib.asynccontextmanager
async def orphan(service: Service, data: bytes = b"nobody's") -> AsyncIterator[Segment]:
    """Bytes of an upload that ended after the store had them and before a row was there."""
    writer = service.store.writer()
    await writer.write(data)
    segment = await writer.finish()
    writer.keep()
    yield segment


def test_a_deleted_version_goes_when_its_grace_period_is_over(settings: Settings) -> None:
    async def work(service: Service) -> None:
        gone, kept = await publish(service, "gone"), await publish(service, "kept", b"others")
        await service.registry.delete(gone, "1", EVERYONE, "test")
        assert await collected(service, grace_days=1) == Collected()
        await service.registry.restore(gone, EVERYONE, "test")
        assert await bytes_of(service, gone) == b"bytes"
        await service.registry.delete(gone, "1", EVERYONE, "test")
        before = await stored(service)
        assert await collected(service, dry_run=True) == Collected(versions=1, objects=1, bytes=5)
        assert (await stored(service), await count(service, models)) == (before, 2)
        assert await collected(service) == Collected(versions=1, objects=1, removed=1, bytes=5)
        assert await collected(service) == Collected()
        assert len(await stored(service)) == len(before) - 1
        assert (await count(service, models), await count(service, objects), await count(service, garbage)) == (1, 1, 0)
        assert await bytes_of(service, kept) == b"others"

    in_service(settings, work)


def test_bytes_that_another_version_has_stay(settings: Settings) -> None:
    async def work(service: Service) -> None:
        one, two = await publish(service, "one"), await publish(service, "two")
        await service.registry.delete(one, "1", EVERYONE, "test")
        assert await collected(service) == Collected(versions=1)
        assert await bytes_of(service, two) == b"bytes"
        await service.registry.delete(two, "1", EVERYONE, "test")
        assert (await collected(service, grace_days=1)).objects == 0  # it can be restored
        assert await collected(service) == Collected(versions=1, objects=1, removed=1, bytes=5)

    in_service(settings, work)


def test_garbage_stays_in_the_store_until_it_has_settled(settings: Settings) -> None:
    async def work(service: Service) -> None:
        await service.registry.delete(await publish(service, "gone"), "1", EVERYONE, "test")
        assert await collected(service, settle_s=3600) == Collected(versions=1, objects=1, bytes=5)
        assert len(await stored(service)) == 1
        assert await collected(service, settle_s=3600) == Collected()
        assert await collected(service) == Collected(removed=1)
        assert await stored(service) == set()

    in_service(settings, work)


def test_an_orphan_is_found_by_one_run_and_removed_by_the_next(settings: Settings) -> None:
    async def work(service: Service) -> None:
        kept = await publish(service, "kept")
        async with orphan(service):
            assert await collected(service, dry_run=True) == Collected(orphans=1, bytes=8)
            assert await collected(service) == Collected(orphans=1, bytes=8)
            assert len(await stored(service)) == 2
            assert await collected(service) == Collected(removed=1)
        assert await bytes_of(service, kept) == b"bytes"

    in_service(settings, work)


def test_what_is_being_written_is_no_orphan(settings: Settings) -> None:
    async def work(service: Service) -> None:
        incoming = service.receiver.incoming()
        await incoming.write(b"x" * (2 << 20))
        content = None
        for step in range(3):
            assert await collected(service) == Collected()
            if step == 1:
                content = await incoming.finish()
        assert content is not None
        contents = {"sha256": content.sha256, "size": content.size}
        metadata = ModelMetadata.model_validate({"name": "slow", "version": "1"}).columns()
        row = await service.registry.add(metadata, contents, [incoming], EVERYONE, "test")
        await collected(service)
        await collected(service)
        assert await bytes_of(service, row.id) == b"x" * (2 << 20)

    in_service(settings, work)


def test_expired_uploads_go_and_others_stay(settings: Settings) -> None:
    async def work(service: Service) -> None:
        async with orphan(service) as old, orphan(service, b"young") as young:
            async with service.database.write() as connection:
                for name, segment, hours in (("old", old, -1), ("young", young, 1)):
                    row = {
                        "id": name, "client": "me", "size": 9, "received": segment.size, "upload_metadata": "",
                        "segments": [[segment.location, segment.size]], "created_at": now(),
                        "expires_at": shifted(hours=hours),
                    }  # fmt: skip
                    await connection.execute(insert(uploads), row)
                await connection.commit()
            assert await collected(service) == Collected(uploads=1, removed=1, bytes=8)
            assert await stored(service) == {young.location}
            assert await collected(service) == Collected()

    in_service(settings, work)


def test_garbage_that_something_refers_to_is_no_garbage(settings: Settings) -> None:
    async def work(service: Service) -> None:
        identifier = await publish(service, "kept")
        (location,) = await stored(service)
        async with service.database.write() as connection:
            await connection.execute(insert(garbage), {"location": location, "added_at": shifted(days=-9)})
            await connection.commit()
        assert await collected(service) == Collected()
        assert await bytes_of(service, identifier) == b"bytes"
        assert await count(service, garbage) == 0

    in_service(settings, work)


def test_the_audit_says_what_was_collected(settings: Settings) -> None:
    async def work(service: Service) -> None:
        await service.registry.delete(await publish(service, "gone"), "1", EVERYONE, "test")
        await collected(service)
        async with service.database.read() as connection:
            lines = [row async for row in audit.entries(connection) if row["action"] == "collect"]
            assert (await audit.verify(connection)).problem is None
        assert [line["detail"] for line in lines] == [
            {"versions": 1, "first": 1, "last": 1},
            {"objects": 1, "bytes": 5},
            {"removed": 1},
        ]

    in_service(settings, work)


def test_a_clock_that_went_back_keeps_what_would_be_too_young(settings: Settings) -> None:
    async def work(service: Service) -> None:
        identifier = await publish(service, "gone")
        await service.registry.delete(identifier, "1", EVERYONE, "test")
        async with service.database.write() as connection:
            await connection.execute(update(models).values(deleted_at=shifted(days=2)))
            await connection.commit()
        assert await collected(service, grace_days=1) == Collected()

    in_service(settings, work)


def test_two_servers_collect_and_publish_at_once(settings: Settings) -> None:
    async def work(service: Service) -> None:
        async with Service.open(settings) as other:
            alive: dict[int, bytes] = {}

            async def lives(one: Service, numbers: range) -> None:
                for number in numbers:
                    data = b"%d" % (number % 7)  # often the same bytes, so that objects come and go
                    for _ in range(50):
                        with contextlib.suppress(Exception):
                            identifier = await publish(one, f"m{number}", data)
                            break
                    if number % 3:
                        await one.registry.delete(identifier, "1", EVERYONE, "test")
                    else:
                        alive[identifier] = data

            async def collects(one: Service) -> None:
                for _ in range(4):
                    await collected(one)

            await asyncio.gather(
                lives(service, range(18)), lives(other, range(18, 36)), collects(service), collects(other)
            )
            for one in (service, other, service):
                await collected(one)
            assert len(alive) == 12
            for identifier, data in alive.items():
                assert await bytes_of(service, identifier) == data
            assert len(await stored(service)) == await count(service, objects) == len(set(alive.values()))

    in_service(settings, work)


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_ends_its_work(settings: Settings, tmp_path: Path) -> None:
    kept: dict[int, bytes] = {}

    async def fill(service: Service) -> None:
        for number in range(40):
            identifier = await publish(service, f"m{number}", b"%d" % number)
            if number % 4:
                await service.registry.delete(identifier, "1", EVERYONE, "test")
            else:
                kept[identifier] = b"%d" % number
        for _ in range(10):
            async with orphan(service):
                pass

    async def check(service: Service) -> None:
        while await collected(service) != Collected():
            pass
        for identifier, data in kept.items():
            assert await bytes_of(service, identifier) == data
        assert len(await stored(service)) == await count(service, objects) == len(kept)
        async with service.database.read() as connection:
            assert (await audit.verify(connection)).problem is None

    in_service(settings, fill)
    program = tmp_path / "collect.py"
    program.write_text(
        "import asyncio, sys\n"
        "from hxmlops_sharing import collect, settings\n"
        "from hxmlops_sharing.service import Service\n"
        "collect.BATCH = 3\n"
        "async def run():\n"
        "    async with Service.open(settings.read_settings()) as service:\n"
        "        print('ready', flush=True)\n"
        "        await collect.collect(service.database, service.store, grace_days=0, settle_s=0, orphan_s=0)\n"
        "asyncio.run(run())\n"
    )
    values = environment(settings)
    generator = random.Random(20261125)  # noqa: S311 (moments)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, program], env=os.environ | values, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(generator.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    in_service(settings, check)


def test_the_command_prints_a_table(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(service: Service) -> None:
        await service.registry.delete(await publish(service, "gone"), "1", EVERYONE, "test")

    in_service(settings, work)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HXMLOPS_SHARING_GRACE_DAYS", "0")
    for more, removed in (["--dry-run"], 0), ([], 0), (["--settle-minutes", "0"], 1):
        assert main(["collect", *more]) == 0
        table = capsys.readouterr().out.splitlines()
        assert table[0].startswith("versions whose grace period was over ")
        assert table[4].split()[-1] == str(removed)
    monkeypatch.setenv("HXMLOPS_SHARING_STORE", "/dev/null/store")
    assert main(["collect"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
