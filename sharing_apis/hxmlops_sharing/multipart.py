"""multipart/form-data parsed as it arrives: texts into memory, within limits; files straight into the store."""

from collections.abc import AsyncIterator, Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hxmlops_sharing.digests import declared_digest
from hxmlops_sharing.incoming import Incoming
from hxmlops_sharing.problems import Problem

MAX_TEXT = 8 << 20
"""Bytes of all text fields together; `parameters` carries signed statements with their reports."""
MAX_PARTS = 100
MAX_HEADERS = 16 << 10
"""Bytes of one part's header fields."""


class FormReader:
    """Reads one form. Parts named in `files` go to their Incoming, the others become texts."""

    def __init__(self, content_type: str, files: Mapping[str, Incoming]) -> None:
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise Problem(400, "malformed", "multipart/form-data without a boundary")
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise Problem(400, "malformed", "multipart/form-data with an overlong boundary") from None
        self._files = files
        self._texts: dict[str, bytearray] = {}
        self._text_size = 0
        self._parts: list[str] = []
        self._header = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._headers_size = 0
        self._pieces: list[tuple[Incoming, bytes]] = []
        self._ended = False

    async def read(self, body: AsyncIterator[bytes]) -> dict[str, str]:
        """The texts by name; the files are written, not finished. Problem 400 or 413 for a wrong form."""
        async for data in body:
            try:
                self._parser.write(data)
            except FormParserError:
                raise Problem(400, "malformed", "the body is no multipart/form-data") from None
            for incoming, piece in self._pieces:
                await incoming.write(piece)
            self._pieces.clear()
        if not self._ended:
            raise Problem(400, "malformed", "the multipart/form-data ends before its last boundary")
        missing = [name for name in self._files if name not in self._parts]
        if missing:
            raise Problem(422, "invalid", f"{', '.join(missing)}: field required, as a file")
        try:
            return {name: text.decode() for name, text in self._texts.items()}
        except UnicodeDecodeError:
            raise Problem(400, "malformed", "text fields should be UTF-8") from None

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._headers_size = 0
        if len(self._parts) >= MAX_PARTS:
            raise Problem(413, "too-large", f"more than {MAX_PARTS} parts")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(0, data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(1, data[start:end])

    def _extend_header(self, side: int, data: bytes) -> None:
        self._headers_size += len(data)
        if self._headers_size > MAX_HEADERS:
            raise Problem(413, "too-large", f"header fields of more than {MAX_HEADERS >> 10} KiB in one part")
        self._header[side].extend(data)

    def _on_header_end(self) -> None:
        field, value = self._header
        self._headers[field.decode("latin-1").lower()] = value.decode("latin-1")
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", "").encode("latin-1"))
        try:
            name = options[b"name"].decode()
        except (KeyError, UnicodeDecodeError):
            raise Problem(400, "malformed", "a part of the form has no name") from None
        if name in self._parts:
            raise Problem(400, "malformed", "a part of the form is there twice")
        self._parts.append(name)
        if name in self._files:
            incoming = self._files[name]
            incoming.declared = declared_digest(self._headers, "content-digest", "digest")
            incoming.waits = len(self._parts) == len(self._texts) + 1
        else:
            self._texts[name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        name = self._parts[-1]
        if name in self._files:
            self._pieces.append((self._files[name], data[start:end]))
            return
        self._text_size += end - start
        if self._text_size > MAX_TEXT:
            raise Problem(413, "too-large", f"text fields of more than {MAX_TEXT >> 20} MiB together")
        self._texts[name].extend(data[start:end])

    def _on_end(self) -> None:
        self._ended = True
