"""Receipts of downloads: the server's signed word on what it handed over."""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hxmlops_evidence.errors import one_line
from hxmlops_sharing.calls import patience
from hxmlops_sharing.calls.errors import SharingError
from hxmlops_sharing.calls.link import Link
from hxmlops_sharing.calls.patience import Patience

type Receipt = dict[str, Any]
"""A DSSE envelope around a delivery."""


async def fetch_receipt(link: Link, reference: str, key: Path | None, artifact: str | None = None) -> Receipt | None:
    """One receipt; None when the server signs none, or went down before that download had ended for it.

    With the server's public `key` (PEM), SharingError unless that has signed it, and for this artifact.
    """
    match = re.fullmatch(r"(?:.*/)?(\d{1,18})", reference, re.ASCII)
    if match is None:
        raise SharingError(
            f"{one_line(reference)[:100]!r} names no receipt: give what X-HXMLOps-Receipt of a download says"
        )
    path = f"/receipts/{match[1]}"
    left = Patience(patience.RECEIPT_PAUSES_S)
    while True:
        try:
            receipt = (await link.call("GET", path)).value
            break
        except SharingError as error:
            if error.status == 404:
                return None
            if error.status != 409:
                raise
            pause = left.pause()  # the download's end is being written down
            if pause is None:
                return None
        await link.wire.sleep(pause)
    if not isinstance(receipt, dict):
        raise SharingError(f"{link.where(path)} answered no receipt: is this a sharing API?")
    if key is not None:
        await link.wire.work(lambda: _verify(link.where(path), receipt, key, artifact))
    return receipt


def write_receipts(path: Path, receipts: Sequence[Receipt]) -> None:
    """A line for each answer that the bytes came in: usually one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.writelines(json.dumps(receipt, separators=(",", ":")) + "\n" for receipt in receipts)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _verify(where: str, receipt: Receipt, key: Path, artifact: str | None) -> None:
    from hxmlops_sharing.deliveries import ReceiptError, verify_receipt

    try:
        delivery = verify_receipt(receipt, key.read_text())
    except ReceiptError as error:
        raise SharingError(f"{where} is no proof: {error}") from None
    if artifact is not None and delivery["artifact"] != artifact:
        raise SharingError(f"{where} is no proof: it is about {delivery['artifact']}, not {artifact}")
