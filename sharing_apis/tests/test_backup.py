"""Backup and restore: all of it arrives, to a database and store of any kind, or nothing does."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hxmlops_sharing import audit
from hxmlops_sharing.__main__ import main
from hxmlops_sharing.access import EVERYONE
from hxmlops_sharing.records import ModelMetadata
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings
from hxmlops_sharing.tables import metadata, models, objects

ALL_BACKENDS = True

type Backend = Callable[[], dict[str, Any]]
type Printed = pytest.CaptureFixture[str]
type Use = Callable[[Settings], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Has the commands work with these settings."""

    def set_(settings: Settings) -> None:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)

    return set_


@pytest.fixture
def source(backend: Backend, tmp_path: Path) -> Settings:
    return settings(tmp_path / "source", backend)


@pytest.fixture
def filled(source: Settings) -> Settings:
    """A server's database and store with some versions, one of them deleted, one gone, and an alias."""

    async def work(service: Service) -> None:
        for number, size in enumerate((0, 1, 3 << 20, 1)):
            await publish(service, f"m{number}", bytes([number]) * size)
        await service.registry.delete(2, "1", EVERYONE, "test")
        await service.registry.set_alias("m0", "champion", 1, None, EVERYONE, "test")
        last = await publish(service, "gone", b"gone")
        async with service.database.write() as connection:
            await connection.execute(models.delete().where(models.c.id == last))
            await connection.commit()

    in_service(source, work)
    return source


def settings(folder: Path, backend: Backend = dict) -> Settings:
    places = {"database": str(folder / "records.sqlite"), "store": str(folder / "store")}
    return read_settings(kind="model", auth="none", **places | backend())


def environment(settings: Settings) -> dict[str, str]:
    names = ("kind", "database", "database_username", "store", "s3_endpoint", "s3_region")
    values = {name: str(getattr(settings, name)) for name in names}
    for name in ("database_password", "s3_access_key", "s3_secret_key"):
        values[name] = getattr(settings, name).get_secret_value()
    return {f"HXMLOPS_SHARING_{name.upper()}": value for name, value in values.items()}


def in_service[T](settings: Settings, work: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with Service.open(settings) as service:
            return await work(service)

    return asyncio.run(run())


async def publish(service: Service, name: str, data: bytes) -> int:
    incoming = service.receiver.incoming()
    await incoming.write(data)
    content = await incoming.finish()
    contents = {"sha256": content.sha256, "size": content.size}
    values = {"name": name, "version": "1", "parameters": {"é": [1, 0.5, None]}}
    try:
        columns = ModelMetadata.model_validate(values).columns()
        row = await service.registry.add(columns, contents, [incoming], EVERYONE, "test")
    finally:
        await incoming.discard()
    return int(row.id)


async def all_of(service: Service) -> dict[str, Any]:
    """Every table but where the bytes are, and the bytes of every object."""
    found: dict[str, Any] = {}
    async with service.database.read() as connection:
        for table in metadata.sorted_tables:
            columns = [column for column in table.c if column.name != "segments"]
            rows = await connection.execute(select(*columns).order_by(*table.primary_key.columns))
            found[table.name] = [dict(row) for row in rows.mappings()]
        for row in await connection.execute(select(objects)):
            data = b""
            for location, size in row.segments:
                async for block in service.store.read(location, 0, size):
                    data += block
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == row.sha256
    return found


async def nothing(service: Service) -> None:
    """Opening is enough."""


def test_a_backup_restored_elsewhere_is_all_there_was(
    filled: Settings, backend: Backend, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    use(filled)
    assert main(["backup", "--out", str(tmp_path / "backup")]) == 0
    before = in_service(filled, all_of)
    for number, target in enumerate((settings(tmp_path / "sqlite"), settings(tmp_path / "same", backend))):
        use(target)
        assert main(["restore", "--from", str(tmp_path / "backup")]) == 0, capsys.readouterr().err
        assert in_service(target, all_of) == before
        assert main(["audit", "verify"]) == 0

        async def next_id(service: Service) -> int:
            await service.registry.restore(2, EVERYONE, "test")
            return await publish(service, "new", b"new")

        assert in_service(target, next_id) == 6, number  # 5 was that of a version that is gone


def test_files_are_private_and_named_by_digest(filled: Settings, use: Use, tmp_path: Path) -> None:
    use(filled)
    folder = tmp_path / "backup"
    assert main(["backup", "--out", str(folder)]) == 0
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    stored = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    assert len(stored) == 5
    for path in stored:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_second_backup_copies_what_is_new_and_drops_what_is_gone(
    filled: Settings, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    use(filled)
    folder = tmp_path / "backup"
    assert main(["backup", "--out", str(folder)]) == 0
    assert "; 5 copied now, 0 removed" in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (folder / "objects").rglob("*") if path.is_file()}

    async def change(service: Service) -> None:
        await publish(service, "more", b"more")
        async with service.database.write() as connection:
            gone = hashlib.sha256(b"gone").hexdigest()
            await connection.execute(objects.delete().where(objects.c.sha256 == f"sha256:{gone}"))
            await connection.commit()

    in_service(filled, change)
    assert main(["backup", "--out", str(folder)]) == 0
    assert "; 1 copied now, 1 removed" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in (folder / "objects").rglob("*") if path.is_file()}
    assert len(set(after.items()) & set(times.items())) == 4
    assert len(list((folder / "tables").iterdir())) == 6


@pytest.fixture
def made(filled: Settings, use: Use, tmp_path: Path) -> Path:
    """A backup."""
    use(filled)
    assert main(["backup", "--out", str(tmp_path / "backup")]) == 0
    return tmp_path / "backup"


@pytest.fixture
def target(use: Use, backend: Backend, tmp_path: Path) -> Settings:
    """An empty database and store, for restoring."""
    target = settings(tmp_path / "target", backend)
    use(target)
    return target


def test_damage_of_any_file_is_refused_and_repaired_it_goes_on(
    made: Path, backend: Backend, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    target = settings(tmp_path / "target", backend)
    use(target)
    for path in sorted(path for path in made.rglob("*") if path.is_file() and not path.name.startswith(".")):
        data = path.read_bytes()
        for damaged in (data[:-1] + b"\x00" if data else b"x", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            if path.name == "manifest.json" and damaged is not None:
                path.write_bytes(data[:50])
            assert main(["restore", "--from", str(made)]) == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert path.name in said
            path.write_bytes(data)
    assert main(["restore", "--from", str(made)]) == 0
    assert len(in_service(target, all_of)["models"]) == 4


@pytest.mark.usefixtures("target")
def test_a_changed_audit_is_refused_though_its_digest_was_made_to_fit(made: Path, capsys: Printed) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    path = made / "tables" / manifest["tables"]["audit"]["file"]
    path.write_bytes(path.read_bytes().replace(b'"anonymous"', b'"somebody"', 1))
    manifest["tables"]["audit"]["sha256"] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert main(["restore", "--from", str(made)]) == 2
    assert "line 1 was altered" in capsys.readouterr().err


def test_what_is_not_empty_is_not_filled(
    made: Path, filled: Settings, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    use(filled)
    before = in_service(filled, all_of)
    assert main(["restore", "--from", str(made)]) == 2
    assert "the database has models: name an empty one" in capsys.readouterr().err
    assert in_service(filled, all_of) == before
    used = settings(tmp_path / "used")
    (tmp_path / "used" / "store" / "objects" / "ab").mkdir(parents=True)
    (tmp_path / "used" / "store" / "objects" / "ab" / "abcd").write_bytes(b"x")
    use(used)
    assert main(["restore", "--from", str(made)]) == 2
    assert "the store has files" in capsys.readouterr().err
    assert main(["restore", "--from", str(tmp_path / "nowhere")]) == 2
    assert "has no manifest.json: name a folder that `backup` has filled" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_backup_and_restore_go_on(
    filled: Settings, backend: Backend, use: Use, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    program = [sys.executable, "-m", "hxmlops_sharing"]
    target = settings(tmp_path / "target", backend)
    before = in_service(filled, all_of)
    in_service(target, nothing)
    for settings_, command in ((filled, ["backup", "--out"]), (target, ["restore", "--from"])):
        for wait_s in (0.5, 0.8, 1.0, 1.2):
            process = subprocess.Popen(
                [*program, *command, str(folder)], env=os.environ | environment(settings_), stderr=subprocess.DEVNULL
            )
            time.sleep(wait_s)
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                break  # it was quicker
        else:
            use(settings_)
            assert main([*command, str(folder)]) == 0
    assert in_service(target, all_of) == before


def test_bytes_that_are_damaged_in_the_store_are_not_backed_up(
    filled: Settings, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    if filled.on_s3:
        pytest.skip("the test damages a folder")
    use(filled)
    path = max((path for path in Path(filled.store).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.write(b"damaged")
    assert main(["backup", "--out", str(tmp_path / "backup")]) == 2
    assert "is not in the store as it was published" in capsys.readouterr().err
    assert not (tmp_path / "backup" / "manifest.json").exists()
    shutil.rmtree(tmp_path / "backup")


def test_audit_is_exported_and_verified_without_the_database(
    filled: Settings, use: Use, tmp_path: Path, capsys: Printed
) -> None:
    use(filled)
    export = tmp_path / "audit.jsonl"
    assert main(["audit", "export", "--out", str(export)]) == 0
    assert export.stat().st_mode & 0o777 == 0o600
    assert main(["audit", "verify"]) == 0
    online = capsys.readouterr().out.splitlines()[1]
    assert main(["audit", "verify", "--file", str(export)]) == 0
    assert capsys.readouterr().out.splitlines() == [online]
    assert online.startswith("7 lines, each as it was written; head sha256:")
    lines = export.read_bytes().splitlines(keepends=True)
    for changed, said in (
        (lines[:2] + lines[3:], "line 3 is missing"),
        ([lines[0].replace(b'"m0"', b'"mX"'), *lines[1:]], "line 1 was altered"),
        ([lines[1], lines[0], *lines[2:]], "line 1 is missing"),
        ([*lines, b"{}\n"], "line 8 is not a line of an audit"),
    ):
        export.write_bytes(b"".join(changed))
        assert main(["audit", "verify", "--file", str(export)]) == 1
        assert said in capsys.readouterr().err


def test_a_receipt_is_about_a_line_of_the_chain(filled: Settings, use: Use, tmp_path: Path, capsys: Printed) -> None:
    import base64

    use(filled)

    async def head(service: Service) -> audit.Entry:
        async with service.database.read() as connection:
            return await audit.head(connection)

    entry = in_service(filled, head)
    receipt = tmp_path / "receipt.json"
    for digest, code in ((entry.digest, 0), ("sha256:" + "0" * 64, 1)):
        payload = json.dumps({"audit": {"id": entry.id, "digest": digest}}).encode()
        receipt.write_text(json.dumps({"payload": base64.b64encode(payload).decode()}))
        assert main(["audit", "verify", "--receipt", str(receipt)]) == code
    printed = capsys.readouterr()
    assert f"{receipt}: line {entry.id} is in the chain" in printed.out
    assert f"the audit has no line {entry.id} with the digest sha256:000" in printed.err
    receipt.write_text("{}")
    assert main(["audit", "verify", "--receipt", str(receipt)]) == 2


def test_a_line_changed_in_the_database_is_found(filled: Settings, use: Use, capsys: Printed) -> None:
    if filled.on_postgresql:
        pytest.skip("the trigger cannot be gone round without a superuser's rights; SQLite's file can be changed")
    import sqlite3

    with sqlite3.connect(filled.database) as database:
        database.execute("DROP TRIGGER audit_refuses_update")
        database.execute("UPDATE audit SET client = 'somebody' WHERE id = 3")
    use(filled)
    assert main(["audit", "verify"]) == 1
    assert capsys.readouterr().err == "hxmlops_sharing: the audit is broken: line 3 was altered\n"
