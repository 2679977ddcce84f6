"""What the server has at this moment: follows serving.json, loads in the background, never makes a request wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from hxmlops_model_server.log import log
from hxmlops_model_server.model import Model
from hxmlops_model_server.serving import FILE_NAME, Listing, Version, read
from hxmlops_model_server.verification import Unfit

POLL_S = 0.1

type Load = Callable[[Version], Model]


class Unknown(LookupError):
    """No such model, or no such version of it. One line."""


@dataclass(frozen=True)
class Slot:
    """A listed version: loading (neither model nor reason), ready (a model) or failed (the reason, in one line)."""

    version: Version
    model: Model | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        return "ready" if self.model else "failed" if self.reason else "loading"


@dataclass(frozen=True)
class Served:
    """One model: its listing, and a slot for each version that is listed."""

    listing: Listing
    slots: Mapping[str, Slot]


class Registry:
    """The listed versions and their models. Readers see one table after another, each whole; threads write them."""

    def __init__(self, folder: Path, load: Load) -> None:
        """`load` turns a version into a model, or raises Unfit."""
        self._folder, self._load = folder, load
        self._table: Mapping[str, Served] = {}
        self._read = False
        self._stamp: tuple[int, int, int] | None = None
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        self._watcher.start()

    def stop(self) -> None:
        self._stopping.set()
        self._watcher.join()
        self._loader.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """serving.json was read, and each model's current version, if it has one, is ready."""
        served = self._table.values()
        currents = [model.slots[model.listing.current] for model in served if model.listing.current is not None]
        return self._read and all(slot.model for slot in currents)

    def served(self, name: str) -> Served:
        """Raises Unknown."""
        try:
            return self._table[name]
        except KeyError:
            raise Unknown("no such model") from None

    def slot(self, name: str, version: str | None) -> Slot:
        """The slot of a version, of the current one when None. Raises Unknown."""
        served = self.served(name)
        if version is None:
            version = served.listing.current
            if version is None:
                raise Unknown("the model has no current version yet")
        try:
            return served.slots[version]
        except KeyError:
            raise Unknown("the model has no such version") from None

    def _watch(self) -> None:
        while True:
            try:
                self._look()
            except OSError as problem:
                log("serving_unreadable", reason=f"{FILE_NAME}: {problem.strerror}")
            if self._stopping.wait(POLL_S):
                return

    def _look(self) -> None:
        """Take up serving.json when it is another file, or was written, since the last look."""
        try:
            status = (self._folder / FILE_NAME).stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            listings = read(self._folder)
        except ValueError as problem:
            log("serving_unreadable", reason=str(problem))  # what was served goes on
            return
        self._take_up(listings)
        self._read = True

    def _take_up(self, listings: Mapping[str, Listing]) -> None:
        with self._writing:
            old = self._table
            self._table = {name: self._following(listing) for name, listing in listings.items()}
        _log_changes(old, self._table)
        new = [slot for slot in _slots(self._table) if slot.state == "loading"]
        # The versions that answer by default come first.
        for slot in sorted(new, key=lambda slot: listings[slot.version.name].current != slot.version.version):
            self._loader.submit(self._fill, slot)

    def _following(self, listing: Listing) -> Served:
        """The listing with the slots of those versions that are listed as before, and new ones for the others."""
        slots = {}
        for key, version in listing.versions.items():
            slot = self._place(version)
            slots[key] = slot if slot and slot.version == version else Slot(version)
        return Served(listing, slots)

    def _fill(self, slot: Slot) -> None:
        """Load the slot's version and put the outcome into its place, if it still has one."""
        version = slot.version
        if self._place(version) is not slot:
            return
        start = perf_counter()
        try:
            filled = Slot(version, model=self._load(version))
            log("loaded", model=version.name, version=version.version, seconds=round(perf_counter() - start, 3))
        except Unfit as problem:
            filled = Slot(version, reason=str(problem))
            log("load_failed", model=version.name, version=version.version, reason=str(problem))
        except Exception as problem:  # whatever a damaged version does, the others are served on
            filled = Slot(version, reason=f"cannot be loaded ({type(problem).__name__})")
            log("load_failed", model=version.name, version=version.version, reason=filled.reason)
        with self._writing:
            if self._place(version) is slot:
                served = self._table[version.name]
                slots = {**served.slots, version.version: filled}
                self._table = {**self._table, version.name: Served(served.listing, slots)}

    def _place(self, version: Version) -> Slot | None:
        served = self._table.get(version.name)
        return served.slots.get(version.version) if served else None


def _slots(table: Mapping[str, Served]) -> list[Slot]:
    return [slot for served in table.values() for slot in served.slots.values()]


def _log_changes(before: Mapping[str, Served], after: Mapping[str, Served]) -> None:
    for slot in _slots(before):
        name, version = slot.version.name, slot.version.version
        if name not in after or version not in after[name].slots:
            log("dropped", model=name, version=version)
    for name, served in after.items():
        if name not in before or before[name].listing.current != served.listing.current:
            log("current", model=name, version=served.listing.current)
