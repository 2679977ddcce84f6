"""The tokens file: who holds a token, what for and until when. Tokens themselves are in no file of the server's."""

import contextlib
import fcntl
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from hxmlops_evidence.files import make_private_folder, write_private

SCOPES = ("read", "annotate", "write", "admin")
MAX_NUMBER = 2**53 - 1
"""Of quotas and rates: what JSON can say exactly."""

_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class TokensError(Exception):
    """The tokens file or a request about it is wrong: one line with what to do."""


@dataclass(frozen=True)
class Grant:
    """One entry of the tokens file. `sha256` is the token's digest, `expires_at` RFC 3339; 0 leaves the number to
    the server's settings.
    """

    sha256: str
    client: str
    scopes: tuple[str, ...]
    artifacts: tuple[str, ...]
    expires_at: str
    purpose: str = ""
    recipient: str = ""
    quota_bytes: int = 0
    requests_per_minute: int = 0

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """ValueError, KeyError, TypeError or AttributeError when it is no grant."""
        if not isinstance(value, dict) or not _REQUIRED <= set(value) <= _REQUIRED | set(_OPTIONAL):
            raise ValueError("wrong members")
        if not (isinstance(value["scopes"], list) and isinstance(value["artifacts"], list)):
            raise ValueError("no lists")
        grant = cls(**value | {"scopes": tuple(value["scopes"]), "artifacts": tuple(value["artifacts"])})
        grant.check()
        return grant

    def to_json(self) -> dict[str, Any]:
        """As the tokens file has it: optional members only where they say something."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != _OPTIONAL.get(name)
        }

    def check(self) -> None:
        """ValueError, TypeError or AttributeError when a value is wrong."""
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256 should be sha256: and 64 hexadecimal digits")
        if not set(self.scopes) <= set(SCOPES):
            raise ValueError(f"scopes are {', '.join(SCOPES)}")
        if not self.client:
            raise ValueError("the client should have a name")
        if not all(each.isprintable() for each in (self.client, *self.artifacts, self.purpose, self.recipient)):
            raise ValueError("texts should have printable characters only")
        for number in (self.quota_bytes, self.requests_per_minute):
            if type(number) is not int or not 0 <= number <= MAX_NUMBER:
                raise ValueError(f"numbers should be from 0 to {MAX_NUMBER}")
        if self.expires.tzinfo is None:
            raise ValueError("the time should have a zone")

    @property
    def expires(self) -> datetime:
        return datetime.fromisoformat(self.expires_at)


_OPTIONAL: dict[str, Any] = {each.name: each.default for each in fields(Grant) if each.default is not MISSING}
_REQUIRED = {each.name for each in fields(Grant)} - set(_OPTIONAL)


def token_digest(token: bytes) -> str:
    return f"sha256:{hashlib.sha256(token).hexdigest()}"


def find(grants: list[Grant], digest: str) -> Grant | None:
    """The grant of a token; takes as long for a wrong token as for a right one."""
    found = None
    for grant in grants:
        if hmac.compare_digest(grant.sha256, digest):
            found = grant
    return found


def read_tokens(path: Path) -> list[Grant]:
    """Every grant of a tokens file. TokensError when it is missing or no tokens file."""
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, list):
            raise ValueError("no list")
        return [Grant.from_json(value) for value in document]
    except OSError as error:
        raise TokensError(
            f"tokens file {path}: {error.strerror}: make it with `python -m hxmlops_sharing token create`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TokensError(
            f"tokens file {path} is not a list of grants {{sha256, client, scopes, artifacts, expires_at}}: "
            "restore it, or remove it and create the tokens again"
        ) from None


class TokensFile:
    """The grants in force: read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        """How often the file was read: it rises when the grants may have changed."""
        self.noticed = 0
        """The value of `reads` whose grants the audit has."""
        self._seen: tuple[int, int, int] | None = None
        self._grants: list[Grant] = []

    def grants(self) -> list[Grant]:
        """TokensError when the file is gone or broken: nobody is let in by what it said before."""
        try:
            status = self.path.stat()
            now = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            now = None
        if now is None or now != self._seen:
            self._seen = None
            self._grants = read_tokens(self.path)
            self._seen = now
            self.reads += 1
        return self._grants


def create_token(
    tokens: Path,
    out: Path,
    *,
    client: str,
    scopes: list[str],
    artifacts: list[str],
    days: int,
    purpose: str = "",
    recipient: str = "",
    quota_bytes: int = 0,
    requests_per_minute: int = 0,
) -> bool:
    """Make a token, its digest in `tokens`, itself in `out` (0600). Of the token in `out`, if any, nothing stays.

    False when `out` has a token already that is valid and says the same. TokensError for what no grant can say.
    """
    expires = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    token = secrets.token_urlsafe(32).encode()
    wanted = Grant(
        token_digest(token),
        client,
        tuple(each for each in SCOPES if each in scopes),
        tuple(sorted(set(artifacts))),
        expires.isoformat().replace("+00:00", "Z"),
        purpose,
        recipient,
        quota_bytes,
        requests_per_minute,
    )
    try:
        wanted.check()
    except ValueError as error:
        raise TokensError(f"no token for {client!a}: {error}") from None
    with _changing(tokens) as grants:
        earlier = find(grants, token_digest(out.read_bytes().strip())) if out.exists() else None
        if (
            earlier is not None
            and earlier.expires > datetime.now(UTC)
            and replace(earlier, sha256=wanted.sha256, expires_at=wanted.expires_at) == wanted
        ):
            return False
        grants[:] = [grant for grant in grants if grant is not earlier]
        grants.append(wanted)
        write_private(out, token + b"\n")
    return True


def revoke_tokens(tokens: Path, *, client: str) -> int:
    """Remove every grant of a client; how many there were."""
    with _changing(tokens) as grants:
        kept = [grant for grant in grants if grant.client != client]
        revoked = len(grants) - len(kept)
        grants[:] = kept
    return revoked


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[list[Grant]]:
    """The grants of a file, to change in place; written when they changed. One process at a time."""
    make_private_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    lock_path.touch(mode=0o600)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        grants = read_tokens(path) if path.exists() else []
        before = list(grants)
        yield grants
        if grants != before or not path.exists():
            document = json.dumps([grant.to_json() for grant in grants], indent=2)
            write_private(path, document.encode() + b"\n")
