"""The folder from which a model server serves: `serving.json` and a folder for each version of each model.

The format is the server's (`hxmlops_model_server.serving`); this side writes it. Every change is one rename, so the
server and a later run always find a whole state: what is listed is there, and what is not listed is nobody's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.files import write_atomic
from hxmlops_stages.processes import AlreadyRunning, held
from hxmlops_stages.program import Failed

type Entry = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """What serving.json says of one model. `rolled_back_from`: the current one is so by a rollback from that one."""

    current: str | None = None
    previous: str | None = None
    rolled_back_from: str | None = None
    versions: Mapping[str, Entry] = field(default_factory=dict)

    def settled(self) -> Served:
        """Without versions that are neither current nor previous: what a promotion that was killed has left."""
        kept = {key: entry for key, entry in self.versions.items() if key in (self.current, self.previous)}
        return replace(self, versions=kept)

    def listing(self, version: str, entry: Entry) -> Served:
        """The same, and that version listed."""
        return replace(self, versions={**self.versions, version: entry})

    def with_versions_of(self, other: Served) -> Served:
        """The same, with the versions that the other lists."""
        return replace(self, versions=other.versions)


class ServingFolder:
    """One serving folder, changed by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "serving.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """BadInput without the folder, Failed when another promotion is at work in it."""
        if not self.folder.is_dir():
            raise BadInput(f"serving {self.folder}: no such folder; deploy the model server first")
        try:
            with held(self.folder / "promotion.lock"):
                yield
        except AlreadyRunning as problem:
            raise Failed(f"{self.folder}: a promotion is {problem}; wait for its end") from None

    def read(self, name: str) -> Served:
        """What is listed of a model; nothing when it is not known. BadInput when serving.json is damaged."""
        model = self._document()["models"].get(name)
        if model is None:
            return Served()
        return Served(model["current"], model["previous"], model.get("rolled_back_from"), model["versions"])

    def write(self, name: str, served: Served) -> None:
        """Replace what is listed of a model; nothing is written when it is listed so already."""
        if served == self.read(name):
            return
        document = self._document()
        document["models"][name] = {
            "current": served.current,
            "previous": served.previous,
            "rolled_back_from": served.rolled_back_from,
            "versions": dict(served.versions),
        }
        if not served.versions:
            del document["models"][name]
        write_atomic(self._file, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())

    def path(self, name: str, version: str) -> Path:
        return self.folder / name / version

    def install(self, name: str, version: str, files: Mapping[str, Path]) -> Entry:
        """Copy files, given by their place in the version's folder, and return the entry's paths and its time."""
        target = self.path(name, version)
        temporary = target.with_name(f".{version}.{uuid4().hex[:8]}")
        for place, source in files.items():
            copy = temporary / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        if target.exists():
            target.rename(temporary.with_name(f"{temporary.name}.old"))
        temporary.rename(target)
        relative = f"{name}/{version}"
        return {
            "folder": relative,
            "model": f"{relative}/model.onnx",
            "recipe": f"{relative}/recipe.json",
            "listed_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }

    def clean(self, name: str) -> None:
        """Remove the folders of versions that are not listed, and what a killed promotion has left half copied."""
        listed = self.read(name).versions
        folder = self.folder / name
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in listed:
                shutil.rmtree(entry)
        if folder.is_dir() and not listed:
            folder.rmdir()

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self._file.read_bytes())
            models = document["models"]
            if all(model.keys() >= {"current", "previous", "versions"} for model in models.values()):
                return dict(document)
        except FileNotFoundError:
            return {"schema_version": "1.0", "models": {}}
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise BadInput(f"{self._file}: damaged; remove it and promote again")
