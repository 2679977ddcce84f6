"""Publish, alias, delete, restore, collect, download, in any order: a server does what a model in plain Python says."""

import contextlib
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import pytest
from faults import BYTES, FOREVER_DAYS, TUS, sha256, stored
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from hxmlops_sharing import collect
from hxmlops_sharing.service import Service

ALL_BACKENDS = True

type StartIn = Callable[..., AbstractContextManager[httpx.Client]]
type Backend = Callable[[], dict[str, Any]]

NAMES = ("churn", "fraud")
VERSIONS = ("nightly", "1.0.0-rc.1", "1.0.0", "v1.0.0", "1.9", "1.10")
"""From the earliest to the latest; the third and fourth are equal, so of these the one that came last is later."""
CONTENTS = (b"", b"a", b"b", b"same" * 300_000)
ALIASES = ("champion", "candidate")

names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
aliases = st.sampled_from(ALIASES)


@dataclass
class Version:
    """A version as the model has it."""

    identifier: int
    name: str
    version: str
    data: bytes
    tag: str

    @property
    def rank(self) -> tuple[int, int]:
        """The latest has the highest."""
        return VERSIONS.index(self.version.removeprefix("v")), self.identifier


@dataclass
class Model:
    """What the server should hold."""

    live: dict[int, Version] = field(default_factory=dict)
    deleted: dict[int, Version] = field(default_factory=dict)
    """Within their grace period."""
    revisions: dict[tuple[str, str], list[int | None]] = field(default_factory=dict)
    """What each alias of each name was, the oldest first."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Sent by tus, not registered yet."""
    highest: int = 0

    def named(self, name: str, version: str) -> Version | None:
        found = [each for each in self.live.values() if (each.name, each.version) == (name, version)]
        return found[0] if found else None

    def newest_first(self, name: str) -> list[Version]:
        return sorted((each for each in self.live.values() if each.name == name), key=lambda v: v.rank, reverse=True)

    def alias(self, name: str, alias: str) -> int | None:
        return self.revisions.get((name, alias), [None])[-1]


class Sharing(RuleBasedStateMachine):
    """A Model Sharing API with nothing in it, and its model. Both are told the same."""

    published = Bundle("published")
    """Identifiers of all versions that ever were."""
    sent = Bundle("sent")
    """Files sent by tus."""

    def __init__(self, open_api: Callable[[], AbstractContextManager[httpx.Client]], host: Any) -> None:
        super().__init__()
        self.model = Model()
        self.turns = itertools.cycle(NAMES)
        self._opened = contextlib.ExitStack()
        self.api = self._opened.enter_context(open_api())
        self.service: Service = host.app.state.service
        self.run = host.run

    def teardown(self) -> None:
        self._opened.close()

    # Publish

    @initialize(target=published)
    def publish_some(self) -> Any:
        return multiple(*(self.publish(name, "1.0.0", name.encode(), "", as_form=True) for name in NAMES))

    @rule(
        target=published, name=names, version=st.sampled_from(VERSIONS), data=contents,
        tag=st.sampled_from(["", "t"]), as_form=st.booleans(),
    )  # fmt: skip
    def publish(self, name: str, version: str, data: bytes, tag: str, *, as_form: bool) -> int:
        """New, or the same again: the same record; the same version with other bytes or metadata: 409."""
        said = {"name": name, "version": version, "tag": tag}
        if as_form:
            answer = self.api.post("/api/v1/model", data=said, files={"file": data})
        else:
            headers = {"Content-Type": "application/octet-stream"}
            answer = self.api.post("/api/v1/model", params=said, content=data, headers=headers)
        return self.registered(answer, name, version, data, tag)

    @rule(target=sent, data=contents)
    def send(self, data: bytes) -> str:
        """A file by tus, in two pieces."""
        created = self.api.post("/api/v1/files", headers=TUS | {"Upload-Length": str(len(data))})
        location = str(created.headers["Location"])
        for start, stop in ((0, len(data) // 2), (len(data) // 2, len(data))):
            answer = self.api.patch(location, content=data[start:stop], headers=BYTES | {"Upload-Offset": str(start)})
            assert answer.status_code == 204, answer.text
        self.model.files[location] = data
        return location

    @rule(target=published, name=names, version=st.sampled_from(VERSIONS), location=consumes(sent))
    def register(self, name: str, version: str, location: str) -> int:
        """A file sent before; refused, it stays a file."""
        data = self.model.files[location]
        answer = self.api.post("/api/v1/model", json={"name": name, "version": version, "file": location})
        if answer.status_code == 200:
            del self.model.files[location]
        return self.registered(answer, name, version, data, "")

    def registered(self, answer: httpx.Response, name: str, version: str, data: bytes, tag: str) -> int:
        """What should have come of publishing."""
        there = self.model.named(name, version)
        if there is not None and (there.data, there.tag) != (data, tag):
            assert answer.status_code == 409
            return there.identifier
        assert answer.status_code == 200, answer.text
        identifier = int(answer.json()["modelIdentifier"])
        if there is not None:
            assert identifier == there.identifier
        else:
            assert identifier > self.model.highest  # none is ever given twice
            self.model.highest = identifier
            self.model.live[identifier] = Version(identifier, name, version, data, tag)
        return identifier

    # Alias

    @rule(name=names, alias=aliases, identifier=published)
    def set_alias(self, name: str, alias: str, identifier: int) -> None:
        """404 for a version that is not there, 409 for one of another name."""
        answer = self.api.put(f"/api/v1/aliases/{alias}?name={name}", json={"identifier": identifier})
        self.aliased(answer, name, alias, identifier)

    @rule(name=names, alias=aliases, identifier=published, seen=st.integers(0, 3))
    def compare_and_set_alias(self, name: str, alias: str, identifier: int, seen: int) -> None:
        """412 unless the alias has the revision that was seen; 0: it never was."""
        headers = {"If-Match": f'"{seen}"'} if seen else {"If-None-Match": "*"}
        path = f"/api/v1/aliases/{alias}?name={name}"
        answer = self.api.put(path, json={"identifier": identifier}, headers=headers)
        if seen != len(self.model.revisions.get((name, alias), [])):
            assert answer.status_code == 412
        else:
            self.aliased(answer, name, alias, identifier)

    @rule(name=names, alias=aliases)
    def clear_alias(self, name: str, alias: str) -> None:
        answer = self.api.delete(f"/api/v1/aliases/{alias}?name={name}")
        if self.model.alias(name, alias) is None:
            assert answer.status_code == 404
        else:
            self.revised(answer, name, alias, None)

    def aliased(self, answer: httpx.Response, name: str, alias: str, identifier: int) -> None:
        version = self.model.live.get(identifier)
        if version is None:
            assert answer.status_code == 404
        elif version.name != name:
            assert answer.status_code == 409
        else:
            self.revised(answer, name, alias, identifier)

    def revised(self, answer: httpx.Response, name: str, alias: str, identifier: int | None) -> None:
        revisions = self.model.revisions.setdefault((name, alias), [])
        if not revisions or revisions[-1] != identifier:
            revisions.append(identifier)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["identifier"], answer.json()["revision"]) == (identifier, len(revisions))

    # Delete, restore, collect

    @rule(identifier=published, latest=st.booleans())
    def delete(self, identifier: int, latest: bool) -> None:
        """The version itself, or the latest of its name."""
        version = self.model.live.get(identifier)
        if version is None:
            answer = self.api.delete(f"/api/v1/model/{identifier}?version=latest")
            assert answer.status_code == 404
            return
        gone = self.model.newest_first(version.name)[0] if latest else version
        wanted = "latest" if latest else version.version
        answer = self.api.delete(f"/api/v1/model/{identifier}", params={"version": wanted})
        assert answer.json()["modelIdentifier"] == gone.identifier
        self.model.deleted[gone.identifier] = self.model.live.pop(gone.identifier)
        self.download_by_digest(gone.data)

    @rule(identifier=published)
    def restore(self, identifier: int) -> None:
        """409 when the version was published again meanwhile, 404 when it was collected."""
        answer = self.api.post(f"/api/v1/model/{identifier}/restore")
        version = self.model.deleted.get(identifier)
        if version is None:
            assert answer.status_code == (200 if identifier in self.model.live else 404)
        elif self.model.named(version.name, version.version):
            assert answer.status_code == 409
        else:
            assert answer.status_code == 200
            self.model.live[identifier] = self.model.deleted.pop(identifier)

    @rule(is_over=st.booleans())
    def collect_garbage(self, is_over: bool) -> None:
        """The grace period of nothing is over: all the bytes stay. Then that of all that is deleted: its bytes go."""
        self.collected(FOREVER_DAYS)
        if is_over:
            self.model.deleted.clear()
            self.collected(0)

    def collected(self, grace_days: float) -> None:
        for _ in range(2):
            work = collect.collect(
                self.service.database, self.service.store, grace_days=grace_days, settle_s=0, orphan_s=0
            )
            self.run(work)
        versions = [*self.model.live.values(), *self.model.deleted.values()]
        referred = sum(len(data) for data in {version.data for version in versions})
        waiting = sum(len(data) for data in self.model.files.values())
        assert sum(self.run(stored(self.service)).values()) == referred + waiting

    # Download

    @rule(identifier=published)
    def download(self, identifier: int) -> None:
        """The latest version of its name, whole."""
        answer = self.api.get(f"/api/v1/model/{identifier}")
        version = self.model.live.get(identifier)
        if version is None:
            assert answer.status_code == 404
        else:
            latest = self.model.newest_first(version.name)[0]
            assert answer.content == latest.data
            self.download_by_digest(latest.data)

    @rule(identifier=published, start=st.integers(0, 5), length=st.integers(1, 2_000_000))
    def download_a_range(self, identifier: int, start: int, length: int) -> None:
        """Of the version itself."""
        version = self.model.live.get(identifier)
        assume(version is not None)
        assert version is not None
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self.api.get(f"/api/v1/model/{identifier}", params={"version": version.version}, headers=headers)
        if start >= len(version.data):
            assert answer.status_code == 416
        else:
            assert (answer.status_code, answer.content) == (206, version.data[start : start + length])

    @rule(identifier=published, alias=aliases)
    def download_by_alias(self, identifier: int, alias: str) -> None:
        """404 for an alias of a version that was deleted."""
        version = self.model.live.get(identifier)
        named = self.model.live.get(self.model.alias(version.name, alias) or 0) if version else None
        answer = self.api.get(f"/api/v1/model/{identifier}?version=@{alias}")
        if named is None:
            assert answer.status_code == 404
        else:
            assert answer.content == named.data

    def download_by_digest(self, data: bytes) -> None:
        """Only what a version has that is not deleted."""
        answer = self.api.get(f"/api/v1/artifacts/{sha256(data)}")
        if any(version.data == data for version in self.model.live.values()):
            assert answer.content == data
        else:
            assert answer.status_code == 404

    # Always

    @invariant()
    def the_catalogue_has_all_versions_and_no_others(self) -> None:
        answer = self.api.get("/api/v1/model_catalog")
        records = answer.json()["models"] if answer.status_code == 200 else []
        shown = [
            (each["modelIdentifier"], each["name"], each["version"], each["tag"], each["sha256"], each["size"])
            for each in records
        ]
        assert shown == [
            (each.identifier, each.name, each.version, each.tag, sha256(each.data), len(each.data))
            for _, each in sorted(self.model.live.items())
        ]

    @invariant()
    def a_name_has_its_versions_and_aliases(self) -> None:
        """Of the names, one after each step; the versions come the latest first."""
        name = next(self.turns)
        newest_first = [version.identifier for version in self.model.newest_first(name)]
        if newest_first:
            answer = self.api.get(f"/api/v1/model/{newest_first[-1]}/versions").json()
            assert [each["modelIdentifier"] for each in answer["models"]] == newest_first
        shown = self.api.get(f"/api/v1/aliases?name={name}").json()["aliases"]
        assert {each["alias"]: each["identifier"] for each in shown} == {
            alias: found for alias in ALIASES if (found := self.model.alias(name, alias)) is not None
        }


@pytest.mark.parametrize(("examples", "steps"), [(5, 20), pytest.param(10, 40, marks=pytest.mark.slow)])
def test_a_server_does_what_its_model_says(
    start_in: StartIn,
    backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
    model_host: Any,
    examples: int,
    steps: int,
) -> None:
    class OnBackend(Sharing):
        def __init__(self) -> None:
            super().__init__(lambda: start_in(tmp_path_factory.mktemp("machine"), **backend()), model_host)

    run_state_machine_as_test(
        OnBackend,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
