"""Sharing APIs of peers and our own, with their problems told as a stage's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_sharing.client import SharingClient, SharingError, WrongBytes
from hxmlops_stages.program import Context, Failed


@contextmanager
def connected(context: Context, api: Mapping[str, Any]) -> Iterator[SharingClient]:
    """A client of the API at `url`, with the file `token` of the domain's tokens/, and `ca` for a CA of its own.

    BadInput without a token, Refused("token") when it does not let us in, Refused("digests") when it gives other bytes
    than it should; Failed when it cannot be reached or answers with another error.
    """
    token, ca = context.domain / "tokens" / api["token"], api.get("ca")
    if not token.is_file():
        raise BadInput(f"no token for {api['url']}: put the one that its owner gives you into {token}")
    try:
        with SharingClient(api["url"], token, Path(ca) if ca else None) as client:
            yield client
    except WrongBytes as problem:
        raise Refused("digests", str(problem)) from None
    except SharingError as problem:
        if problem.status in (401, 403):
            raise Refused("token", str(problem)) from None
        raise Failed(str(problem)) from None
