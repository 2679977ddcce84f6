"""The server's log: one JSON object a line on standard output, never anything that a client sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime


def log(event: str, **fields: object) -> None:
    """Write one line: the time (UTC, RFC 3339), what happened, and what it happened to."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"time": time, "event": event, **fields}), flush=True)
