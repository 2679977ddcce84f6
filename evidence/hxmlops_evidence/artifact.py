"""A folder as a deterministic tar: equal files give equal bytes, and nothing but such a tar is unpacked."""

from __future__ import annotations

import errno
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from hxmlops_evidence.digests import sha256_file, walk
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import writing

_BLOCK, _RECORD, _PIECE = tarfile.BLOCKSIZE, tarfile.RECORDSIZE, 1 << 20
_PART = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")


def pack(folder: Path, tar: Path) -> str:
    """Write every file below `folder` into an uncompressed ustar archive, atomically; return the archive's
    digest.

    Names are sorted; time, owner and mode (0644) are constant. BadInput for links, special files, no files at
    all, names that `unpack` would refuse, and files of 8 GiB or more.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in walk(folder)}
    if not paths:
        raise BadInput(f"{folder}: no files to pack")
    with writing(tar) as archive:
        for name in sorted(paths):
            _add(name, paths[name], archive)
        archive.write(_ending(archive.tell()))
    return sha256_file(tar)


def unpack(tar: Path, folder: Path, *, max_members: int = 1000, max_bytes: int = 8 << 30) -> list[str]:
    """Unpack an archive that `pack` made into `folder`, which must not exist or be empty; return its files'
    names.

    Refused("archive") for any byte that `pack` would not have written: links, devices, folders, `../`,
    absolute names, duplicates, owners, headers of other formats, bytes between or after the files; and beyond
    the limits. `folder` appears whole or not at all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tar.open("rb") as archive:
            names = _extract_all(archive, temporary, max_members, max_bytes)
        temporary.replace(folder)
    except OSError as problem:
        if problem.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and problem.filename2 is not None:
            raise BadInput(f"{folder}: is there already; remove it, or name another folder") from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return names


def _add(name: str, path: Path, archive: IO[bytes]) -> None:
    if problem := _problem_with_name(name):
        raise BadInput(f"{path}: {problem}; rename the file")
    with path.open("rb") as content:
        try:
            archive.write(_header(name, content.seek(0, 2)))
        except ValueError:
            raise BadInput(f"{path}: name too long or file too large for a tar") from None
        content.seek(0)
        shutil.copyfileobj(content, archive, _PIECE)
    archive.write(bytes(-archive.tell() % _BLOCK))


def _extract_all(archive: IO[bytes], folder: Path, max_members: int, max_bytes: int) -> list[str]:
    names: list[str] = []
    total = 0
    while any(header := archive.read(_BLOCK)):
        name, size = _member(header)
        if names and name <= names[-1]:
            raise Refused("archive", "its members are not sorted, or one comes twice; ask for it again")
        names.append(name)
        total += size
        if len(names) > max_members or total > max_bytes:
            raise Refused("archive", f"more than {max_members} members or {max_bytes} bytes")
        _extract(archive, size, folder / name)
    end = archive.tell() - len(header)
    if header + archive.read(_RECORD + 2 * _BLOCK) != _ending(end):
        raise Refused("archive", "it is cut off, or something follows its last member; ask for it again")
    return names


def _member(header: bytes) -> tuple[str, int]:
    """(name, size) of a member whose header is, to the byte, what `pack` writes."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        if not _problem_with_name(info.name) and header == _header(info.name, info.size):
            return info.name, info.size
    except (tarfile.HeaderError, ValueError):
        pass
    raise Refused("archive", "a member is no plain file with a relative name; ask for it again")


def _extract(archive: IO[bytes], size: int, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise Refused("archive", "a member's name is also another's folder; ask for it again") from None
    with file:
        left = size
        while left:
            piece = archive.read(min(left, _PIECE))
            if not piece:
                raise Refused("archive", "it is cut off; ask for it again")
            file.write(piece)
            left -= len(piece)
    if any(archive.read(-size % _BLOCK)):
        raise Refused("archive", "something hides between its members; ask for it again")


def _header(name: str, size: int) -> bytes:
    """ValueError when ustar has no room for the name or the size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def _ending(offset: int) -> bytes:
    """Two blocks of zeros, and as many more as fill the last record."""
    length = 2 * _BLOCK
    return bytes(length + -(offset + length) % _RECORD)


def _problem_with_name(name: str) -> str | None:
    for part in name.split("/"):
        if part in (".", "..") or not _PART.fullmatch(part):
            return "a name with `..`, empty parts, backslashes or control characters"
    return None
