"""Two servers on one database and one store, at everything at once, while one or the other is killed."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults import Client, Server, at_work, audit_of, content_of, places, sha256, until

ALL_BACKENDS = True

type Backend = Callable[[], dict[str, Any]]

KILLS = 20
CLIENTS = 4
SHARED_BYTES = [content_of(f"shared {number}") for number in range(6)]
"""Published under many names, so that what is deleted and collected is often what others publish just then."""
COLLECTING = {"collect_every_minutes": 0.005, "grace_days": 2 / 86_400}
"""Every 0.3 s; a deleted version is gone for good after two seconds."""


@dataclass
class Published:
    """A version as its client knows it."""

    identifier: int
    data: bytes
    revisions: int = 0
    """Of its alias."""
    deleted: bool = False


class Everything(Client):
    """Publishes, names, deletes, restores and downloads versions of its own, on one server or the other."""

    def __init__(self, urls: Sequence[str], number: int) -> None:
        super().__init__(urls[0], f"everything {number}")
        self.urls = urls
        self.number = number
        self.versions: dict[str, Published] = {}
        self.turns: set[int] = set()
        """Revisions that it gave the alias which all clients set."""

    def once(self, method: str, path: str, **more: Any) -> Any:
        self.url = self.chance.choice(self.urls)
        return super().once(method, path, **more)

    def perhaps_again(self, method: str, path: str, **more: Any) -> tuple[Any, bool]:
        """The answer, and whether a request before it had none: a server that was killed may have done it."""
        failures = self.failures.total()
        answer = self.ask(method, path, **more)
        return answer, self.failures.total() > failures

    def work(self, enough: threading.Event) -> None:
        """Ends with an answer to all it began."""
        for count in itertools.count():
            if enough.is_set():
                return
            self.add(f"m{self.number}-{count}")
            for _ in range(3):
                name = self.chance.choice(list(self.versions))
                self.chance.choice([self.name_it, self.take_turn, self.delete, self.restore, self.fetch])(name)

    def add(self, name: str) -> None:
        data = self.chance.choice([*SHARED_BYTES, content_of(name)])
        self.versions[name] = Published(int(self.publish(name, data)["modelIdentifier"]), data)

    def name_it(self, name: str) -> None:
        """Only this client sets this alias, so its revisions are known."""
        version = self.versions[name]
        if version.deleted or version.revisions:
            return
        path, body = f"/api/v1/aliases/champion?name={name}", {"identifier": version.identifier}
        answer, again = self.perhaps_again("PUT", path, json=body, headers={"If-None-Match": "*"}, expected=[200, 412])
        if answer.status_code == 412:
            assert again
            answer = self.ask("PUT", path, json=body)
        version.revisions = 1
        assert (answer.json()["revision"], answer.json()["identifier"]) == (1, version.identifier)

    def take_turn(self, _name: str) -> None:
        """Compare and set an alias that all clients set: of those that saw the same revision one may win."""
        path = "/api/v1/aliases/turn?name=everybody"
        history = self.ask("GET", path).json()["aliases"]
        seen, now = history[0]["revision"], history[0]["identifier"]
        other = {"identifier": next(each["identifier"] for each in history if each["identifier"] != now)}
        answer = self.ask("PUT", path, json=other, headers={"If-Match": f'"{seen}"'}, expected=[200, 412])
        if answer.status_code == 200:
            assert answer.json()["revision"] == seen + 1
            self.turns.add(seen + 1)

    def delete(self, name: str) -> None:
        """404 for what is deleted."""
        version = self.versions[name]
        path = f"/api/v1/model/{version.identifier}?version=1"
        answer, again = self.perhaps_again("DELETE", path, expected=[200, 404])
        assert answer.status_code == 404 if version.deleted else answer.status_code == 200 or again
        version.deleted = True

    def restore(self, name: str) -> None:
        """404: it was collected; its name and version are free for other bytes."""
        version = self.versions[name]
        answer = self.ask("POST", f"/api/v1/model/{version.identifier}/restore", expected=[200, 404])
        assert answer.status_code == 200 or version.deleted
        if answer.status_code == 200:
            version.deleted = False
        else:
            before = version.identifier
            self.add(name)
            assert self.versions[name].identifier > before
            self.versions[name].revisions = version.revisions

    def fetch(self, name: str) -> None:
        """All of it, or 404 when it is deleted."""
        version = self.versions[name]
        path = f"/api/v1/model/by_id/{version.identifier}"
        answer = self.ask("GET", path, expected=[404] if version.deleted else [200])
        assert version.deleted or answer.content == version.data


def collected(client: Client) -> bool:
    """Whether versions, the objects that only they had, and bytes of the store are gone for good."""
    lines = client.ask("GET", "/api/v1/audit?limit=10000").json()["lines"]
    done = {what for line in lines if line["action"] == "collect" for what in line["detail"]}
    return {"versions", "objects", "removed"} <= done


@pytest.mark.slow
def test_two_servers_killed_in_turn_while_they_do_everything(backend: Backend, tmp_path: Path) -> None:
    """What was answered stays so, whoever answered it; nothing else is left when all is collected."""
    settings = places(tmp_path, **backend(), **COLLECTING)
    servers = [Server(settings, tmp_path / f"log{number}", settle_s=2, orphan_s=10) for number in range(2)]
    moments = random.Random(26)  # noqa: S311 (moments)
    clients = [Everything([server.url for server in servers], number) for number in range(CLIENTS)]
    with servers[0], servers[1]:
        first = clients[0]
        for version in "12":
            metadata = {"name": "everybody", "version": version}
            record = first.ask("POST", "/api/v1/model", data=metadata, files={"file": b"t"}).json()
            body = {"identifier": record["modelIdentifier"]}
            first.ask("PUT", "/api/v1/aliases/turn?name=everybody", json=body)
        gone = first.publish("gone", content_of("gone"))["modelIdentifier"]
        first.ask("DELETE", f"/api/v1/model/{gone}?version=1")
        with at_work([client.work for client in clients]):
            for _ in range(KILLS):
                server = moments.choice(servers)
                time.sleep(moments.uniform(0.1, 0.4))
                server.kill()
                time.sleep(moments.uniform(0, 0.3))
                server.start()
        aliases = {
            name: first.ask("GET", f"/api/v1/aliases/champion?name={name}").json()["aliases"]
            for client in clients
            for name, version in client.versions.items()
            if version.revisions
        }
        history = first.ask("GET", "/api/v1/aliases/turn?name=everybody").json()["aliases"]
        until(lambda: collected(first), 60)
        for server in servers:
            server.stop()
    for client in clients:
        client.close()
    versions = {name: version for client in clients for name, version in client.versions.items()}
    assert sum(client.failures.total() for client in clients) >= KILLS
    assert aliases
    assert all(len(each) == 1 for each in aliases.values())
    revisions = [each["revision"] for each in reversed(history)]
    assert revisions == list(range(1, len(revisions) + 1))
    won = [turn for client in clients for turn in client.turns]
    assert len(won) == len(set(won))
    assert set(won) <= set(revisions)
    live = {(name, "1"): sha256(version.data) for name, version in versions.items() if not version.deleted}
    assert audit_of(settings).live == live | {("everybody", version): sha256(b"t") for version in "12"}
