"""Liveness and readiness, without a token."""

import asyncio
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from hxmlops_sharing import health
from hxmlops_sharing.health import Readiness
from hxmlops_sharing.tokens import create_token

type Start = Callable[..., AbstractContextManager[httpx.Client]]


def test_alive_and_ready_without_a_token(start: Start, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    create_token(tokens, tmp_path / "token", client="me", scopes=["read"], artifacts=["*"], days=1)
    with start(auth="tokens", tokens=tokens) as api:
        for prefix in ("", "/api/v1"):
            for path, status in (("/health", "UP"), ("/live", "UP"), ("/ready", "READY"), ("/ready/", "READY")):
                answer = api.get(prefix + path)
                assert (answer.status_code, answer.json()) == (200, {"status": status})
                assert api.head(prefix + path).status_code == 200
        assert api.get("/api/v1/model_catalog").status_code == 401


def test_a_store_that_is_away_is_said_and_nothing_more(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEEP_S", 0)
    with start() as api:
        (tmp_path / "store").rename(tmp_path / "away")
        answer = api.get("/ready")
        assert (answer.status_code, answer.json()["detail"]) == (503, "no answer from: store")
        assert answer.headers["retry-after"] == "2"
        assert "/" not in answer.json()["detail"]
        assert api.get("/live").status_code == api.get("/health").status_code == 200
        (tmp_path / "away").rename(tmp_path / "store")
        assert api.get("/ready").status_code == 200


def test_a_database_that_is_away_is_said_until_it_is_back(
    start_process: Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]], postgres: Any
) -> None:
    with start_process(**postgres.database()) as (_, api):
        assert api.get("/ready").status_code == 200
        postgres.stop()
        try:
            answer = wait_for(api, 503)
            assert answer.json()["detail"] == "no answer from: database"
            assert api.get("/live").status_code == 200
        finally:
            postgres.start()
        assert wait_for(api, 200).json() == {"status": "READY"}


def wait_for(api: httpx.Client, status: int) -> httpx.Response:
    for _ in range(100):
        answer = api.get("/ready")
        if answer.status_code == status:
            return answer
        time.sleep(0.1)
    raise TimeoutError


class Part:
    """Of a database or a store, what readiness asks."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.asked = 0

    async def check(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.seconds)


def test_however_many_ask_each_part_is_asked_once_and_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.1)
    database, store = Part(), Part(60)
    readiness = Readiness(database, store)  # type: ignore[arg-type]

    async def ask() -> None:
        answers = await asyncio.gather(*(readiness.away() for _ in range(100)))
        answers += [await readiness.away() for _ in range(100)]
        assert answers == [("store",)] * 200
        await readiness.close()

    asyncio.run(ask())
    assert (database.asked, store.asked) == (1, 1)


def test_the_answer_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "KEEP_S", 0.05)
    database, store = Part(), Part()
    readiness = Readiness(database, store)  # type: ignore[arg-type]

    async def ask() -> None:
        for _ in range(3):
            assert await readiness.away() == ()
            await asyncio.sleep(0.06)

    asyncio.run(ask())
    assert database.asked == 3
