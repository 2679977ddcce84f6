"""Finds pickles by their content: loading one runs whatever its maker wanted.

A pickle is a program for a small stack machine. One of protocol 2 or later begins with 0x80 and its protocol.
One without that is found by following the program as the unpickler would, its arguments skipped unread, until
it ends, calls something that it imported, or turns out to be no program.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

NAMES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".sav"})
"""Endings of files that are loaded by unpickling."""

_HEAD, _PIECE = 1 << 16, 1 << 20
_MOST_STEPS, _MOST_MEMBERS = 100_000, 10_000
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OBJECTS_IN_NPY = re.compile(rb"""['"][|<>=]?O\d*['"]""")
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_IMPORTS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
_CALLS = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def pickle_in(path: Path) -> str | None:
    """Why a file may be, or hold, a pickle; None when it does not. Files of any size take the same memory."""
    if path.suffix.lower() in NAMES:
        return f"its ending {path.suffix.lower()} is that of pickles"
    with path.open("rb") as file:
        if found := _in_stream(file):
            return found
    return _in_zip(path) if zipfile.is_zipfile(path) else None


def _in_stream(file: IO[bytes]) -> str | None:
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(b"\x93NUMPY") and _has_objects(head):
        return "it is a NumPy array of objects, which are pickled"
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            return f"it is packed with {kind}, where a pickle could hide"
    if head[257:262] == b"ustar":
        return "it is a tar, where a pickle could hide"
    if head.startswith(b"x") and _inflates(head):
        return "it is packed with zlib, where a pickle could hide"
    if len(head) > 2 and head[0] == 0x80 and head[1] <= 5 and head[2] in _OPCODES:
        return f"it is a pickle of protocol {head[1]}"
    return "it is a pickle" if _is_program(file) else None


def _in_zip(path: Path) -> str | None:
    """A zip, such as PyTorch's and NumPy's, is looked into once; what is packed in it again may hide a
    pickle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > _MOST_MEMBERS:
                return f"it is a zip of more than {_MOST_MEMBERS} members"
            for member in archive.infolist():
                if PurePosixPath(member.filename).suffix.lower() in NAMES:
                    return "it is a zip with a pickle in it, by that one's ending"
                with archive.open(member) as content:
                    head = content.read(_HEAD)
                if head.startswith(b"PK\x03\x04"):
                    return "it is a zip in a zip, where a pickle could hide"
                if found := _in_stream(io.BytesIO(head)):
                    return f"it is a zip, and of something in it: {found}"
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return "it is a zip that is damaged, encrypted or of an unknown kind, where a pickle could hide"
    return None


def _is_program(file: IO[bytes]) -> bool:
    """Whether the unpickler would get a value out of this, or call something on the way."""
    stack: list[bool] = []  # True for a mark
    imported = False
    for step in range(_MOST_STEPS):
        code = file.read(1)
        opcode = _OPCODES.get(code[0]) if code else None
        if opcode is None:
            return False
        if opcode.name == "STOP":
            return bool(stack) and step > 0
        _skip_argument(file, opcode.arg)
        if not _pop(stack, opcode):
            return False
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        stack += [pushed is pickletools.markobject for pushed in opcode.stack_after]
    return True


def _pop(stack: list[bool], opcode: pickletools.OpcodeInfo) -> bool:
    """Take what the opcode takes from the stack; False when that is not there, where the unpickler would give
    up.
    """
    needed = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        needed = opcode.stack_before.index(pickletools.markobject)
        if True not in stack:
            return False
        while not stack.pop():
            pass
    if needed > len(stack):
        return False
    del stack[len(stack) - needed :]
    return True


def _skip_argument(file: IO[bytes], argument: pickletools.ArgumentDescriptor | None) -> None:
    if argument is None:
        return
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if argument is pickletools.stringnl_noescape_pair else 1):
            while (line := file.readline(_PIECE)) and not line.endswith(b"\n"):
                pass
    elif argument.n in _LENGTH_BYTES:
        length = int.from_bytes(file.read(_LENGTH_BYTES[argument.n]), "little")
        file.seek(min(length, 1 << 62), io.SEEK_CUR)
    else:
        file.seek(argument.n, io.SEEK_CUR)


def _has_objects(head: bytes) -> bool:
    """By the element type in the header of a .npy file, or when that header is too long to tell."""
    length = int.from_bytes(head[8:10] if head[6:7] == b"\x01" else head[8:12], "little")
    return 12 + length > _HEAD or _OBJECTS_IN_NPY.search(head, 0, 12 + length) is not None


def _inflates(head: bytes) -> bool:
    """Two bytes begin a zlib stream, which text may have too; so it must come to its end, or go on for a while."""
    stream = zlib.decompressobj()
    try:
        return len(stream.decompress(head, _HEAD)) > 256 or stream.eof
    except zlib.error:
        return False
