"""Datasets released in tests, also under statements that do not hold."""

from __future__ import annotations

from typing import Any

from hxmlops_evidence.digests import canonical
from hxmlops_sharing.client import SharingClient

from .samples import energy_record
from .worlds import Ran, World, done


def client(world: World, of: str) -> SharingClient:
    api = world.api(of)
    return SharingClient(api["url"], world.folder / of / "tokens" / api["token"])


def released(world: World, **changes: Any) -> Ran:
    """Encrypt and publish a dataset; its publication."""
    return done(world.publish_dataset(done(world.encrypt(**changes))))


def again(world: World, **changes: Any) -> Ran:
    """Another release: the same data, encrypted anew."""
    records = [energy_record("anonymization"), energy_record("anonymization")]
    return released(world, **({"records": records} | changes))


def upload_statement(world: World, statement: dict[str, Any]) -> None:
    """Publish the vendor's part of the last release under another statement."""
    [part] = (world.production.folder / "stages").glob("encryption-*/output/training")
    (world.folder / "statement").write_bytes(canonical(statement))
    with client(world, "mno-production") as api:
        api.upload_dataset(
            part / "dataset.age",
            world.folder / "statement",
            name=world.workflow["id"],
            version="1.0.1",
            data_type="production",
            tag=world.workflow["id"],
            parameters={"statement": statement},
        )


def statement_of(ran: Ran, role: str = "training") -> dict[str, Any]:
    return dict(ran.read(f"{role}/protection.dsse.json"))
