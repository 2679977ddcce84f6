"""The audit chain: what was written can be checked, and what was tampered with is found."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hxmlops_evidence.digests import digest_of
from hxmlops_sharing import audit
from hxmlops_sharing.audit import BEFORE_THE_FIRST, AuditLog, Chain, Line
from hxmlops_sharing.database import Database, DatabaseUnavailable
from hxmlops_sharing.settings import read_settings


def chain_of(*clients: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, client in enumerate(clients, start=1):
        row = {"id": number, "client": client, "previous": rows[-1]["digest"] if rows else BEFORE_THE_FIRST}
        rows.append(row | {"digest": digest_of(row)})
    return rows


def problem_of(rows: list[dict[str, Any]]) -> str | None:
    chain = Chain()
    for row in rows:
        chain.add(row)
    return chain.problem


@given(st.lists(st.text(max_size=5), min_size=2, max_size=8), st.data())
def test_whatever_is_changed_in_the_middle_is_found(clients: list[str], data: st.DataObject) -> None:
    rows = chain_of(*clients)
    assert problem_of(rows) is None
    place = data.draw(st.integers(0, len(rows) - 2))
    changed = [dict(row) for row in rows]
    match data.draw(st.sampled_from(["alter", "remove", "swap", "renumber", "forge"])):
        case "alter":
            changed[place]["client"] += "!"
        case "remove":
            del changed[place]
        case "swap":
            changed[place], changed[place + 1] = changed[place + 1], changed[place]
        case "renumber":
            changed[place]["id"] += 1
        case "forge":  # a line altered together with its own digest
            changed[place]["client"] += "!"
            changed[place]["digest"] = digest_of({k: v for k, v in changed[place].items() if k != "digest"})
    assert problem_of(changed) is not None


def with_log[T](folder: Path, work: Callable[[Database, AuditLog], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        database = Database(
            read_settings(kind="model", auth="none", store="unused", database=folder / "records.sqlite")
        )
        await database.open()
        log = AuditLog(database)
        try:
            return await work(database, log)
        finally:
            await log.close()
            await database.close()

    return asyncio.run(run())


async def lines(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection, aclosing(audit.entries(connection)) as found:
        return [dict(line) async for line in found]


def test_lines_of_many_requests_become_one_chain(tmp_path: Path) -> None:
    async def write(database: Database, log: AuditLog) -> None:
        places = await asyncio.gather(*(log.write(Line("upload", f"client {number}")) for number in range(200)))
        assert sorted(place.id for place in places) == list(range(1, 201))
        async with database.read() as connection:
            verdict = await audit.verify(connection)
        assert (verdict.entries, verdict.head, verdict.problem) == (200, max(places, key=lambda each: each.id), None)

    with_log(tmp_path, write)


def test_equal_notes_become_one_line_with_their_count(tmp_path: Path) -> None:
    async def note(database: Database, log: AuditLog) -> list[dict[str, Any]]:
        for request in range(5):
            log.note(Line("read", "mno", kind="model", identifier=1, request_id=str(request)))
        log.note(Line("read", "vendor", kind="model", identifier=1))
        await log.close()
        return await lines(database)

    found = with_log(tmp_path, note)
    assert [(line["client"], line["detail"], line["request_id"]) for line in found] == [
        ("mno", {"count": 5}, "0"),
        ("vendor", {"count": 1}, ""),
    ]


def test_what_cannot_be_written_is_said_and_notes_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_and_mend(database: Database, log: AuditLog) -> list[dict[str, Any]]:
        log.note(Line("read", "mno"))
        with monkeypatch.context() as patched:
            patched.setattr(audit, "append", _away)
            with pytest.raises(DatabaseUnavailable):
                await log.write(Line("download", "mno"))
        await log.write(Line("download", "mno"))
        return await lines(database)

    assert [line["action"] for line in with_log(tmp_path, fail_and_mend)] == ["read", "download"]


async def _away(*_: object) -> None:
    raise DatabaseUnavailable


def test_notes_of_a_flood_are_counted_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_NOTES", 3)

    async def flood(database: Database, log: AuditLog) -> list[dict[str, Any]]:
        for number in range(10):
            log.note(Line("refused", f"guess {number}"))
        await log.close()
        return await lines(database)

    found = with_log(tmp_path, flood)
    assert len(found) == 4
    assert (found[-1]["action"], found[-1]["detail"]) == ("left-out", {"count": 7})
