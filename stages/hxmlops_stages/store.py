"""A domain's content-addressed files, `<domain>/artifacts/sha256/<64 hex>`, checked whenever they are used."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import make_private_folder


class Store:
    def __init__(self, domain: Path) -> None:
        self._folder = domain / "artifacts" / "sha256"

    def path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def have(self, digest: str, make: Callable[[Path], None]) -> bool:
        """See that the file of this digest is here and whole; True when `make(path)` had to write it.

        Refused("digest") when what it wrote has another digest; nothing is kept then.
        """
        path = self.path(digest)
        if path.is_file() and sha256_file(path) == digest:
            return False
        make_private_folder(self._folder)
        partial = self._folder / f".{path.name}.partial"
        try:
            make(partial)
            if (actual := sha256_file(partial)) != digest:
                raise Refused("digest", f"bytes with digest {actual} came for {digest}; ask the peer to publish again")
            partial.chmod(0o400)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def put_into(self, target: Path, digest: str) -> None:
        """Give a file of the store a second name, or copy it to another file system."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(self.path(digest))
        except OSError as problem:
            if problem.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            shutil.copyfile(self.path(digest), target)
