"""Figures for Prometheus: right, few, of one server each."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hxmlops_sharing.figures import Figures
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.metrics import NO_ROUTE, MeasuredStore, Metrics, route_of
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import read_settings


def figures(metrics: Metrics) -> dict[str, float]:
    lines = metrics.page().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_each_server_counts_for_itself() -> None:
    one, other = Metrics(kind="model", version="1"), Metrics(kind="dataset", version="1")
    one.requests("GET", "/a", 200, 0.02)
    one.requests("GET", "/a", 404, 20)
    one.sent(10)
    one.received(5)
    with one.open_uploads.track_inprogress():
        assert figures(one)["hxmlops_sharing_open_uploads"] == 1
    found = figures(one)
    assert found['hxmlops_sharing_requests_total{method="GET",route="/a",status="200"}'] == 1
    assert found['hxmlops_sharing_request_seconds_bucket{le="0.025",method="GET",route="/a"}'] == 1
    assert found['hxmlops_sharing_request_seconds_bucket{le="+Inf",method="GET",route="/a"}'] == 2
    assert found['hxmlops_sharing_request_seconds_sum{method="GET",route="/a"}'] == pytest.approx(20.02)
    assert (found["hxmlops_sharing_sent_bytes_total"], found["hxmlops_sharing_received_bytes_total"]) == (10, 5)
    assert found["hxmlops_sharing_open_uploads"] == 0
    assert found['hxmlops_sharing_build_info{kind="model",version="1"}'] == 1
    assert figures(other)["hxmlops_sharing_sent_bytes_total"] == 0


def test_clients_cannot_make_labels() -> None:
    metrics = Metrics(kind="model", version="1")
    for number in range(100):
        metrics.requests(f"METHOD{number}", route_of({"path": f"/made/up/{number}"}), 404, 0)
    names = [name for name in figures(metrics) if name.startswith("hxmlops_sharing_requests_total")]
    assert names == [f'hxmlops_sharing_requests_total{{method="other",route="{NO_ROUTE}",status="404"}}']


def test_the_store_is_measured(tmp_path: Path) -> None:
    metrics = Metrics(kind="model", version="1")
    store = MeasuredStore(FolderStore(tmp_path), metrics)

    async def use() -> None:
        await store.open()
        writer = store.writer()
        await writer.write(b"x" * 10)
        segment = await writer.finish()
        writer.keep()
        assert await store.size(segment.location) == 10
        blocks = [block async for block in store.read(segment.location, 2, 10)]
        assert b"".join(blocks) == b"x" * 8
        assert [block async for block in store.read(segment.location, 3, 3)] in ([], [b""])
        assert [each async for each in store.list(older_than_s=0)] == [segment]
        assert store.path(segment.location) == tmp_path / segment.location
        await store.remove(segment.location)
        with pytest.raises(FileNotFoundError):
            _ = [block async for block in store.read(segment.location, 0, 1)]
        await store.close()

    asyncio.run(use())
    found = figures(metrics)
    counts = {
        operation: found[f'hxmlops_sharing_store_seconds_count{{operation="{operation}"}}']
        for operation in ("write", "finish", "size", "read", "remove")
    }
    assert counts == {"write": 1, "finish": 1, "size": 1, "read": 3, "remove": 1}


def test_figures_of_the_database_are_counted_once_a_minute(tmp_path: Path) -> None:
    settings = read_settings(kind="model", auth="none", database=str(tmp_path / "d"), store=str(tmp_path / "s"))

    async def use() -> None:
        async with Service.open(settings) as service:
            reads = 0
            read = service.database.read

            def counted(**given: Any) -> Any:
                nonlocal reads
                reads += 1
                return read(**given)

            service.database.read = counted  # type: ignore[method-assign]
            of_database = Figures(service.database, service.readiness, service.metrics)
            await asyncio.gather(*(of_database.refresh() for _ in range(20)))
            assert reads == 2  # one of them for readiness
            found = figures(service.metrics)
            assert found['hxmlops_sharing_versions{kind="dataset"}'] == 0
            assert found["hxmlops_sharing_database_up"] == found["hxmlops_sharing_store_up"] == 1
            (tmp_path / "s").rename(tmp_path / "away")
            await asyncio.sleep(1.1)
            await of_database.refresh()
            assert figures(service.metrics)["hxmlops_sharing_store_up"] == 0

    asyncio.run(use())
