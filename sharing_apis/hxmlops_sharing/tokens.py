"""The tokens file: who holds a token, what for and until when. Tokens themselves are in no file of the server's."""

import contextlib
import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from hxmlops_evidence.files import make_private_folder, write_private

SCOPES = ("read", "write", "admin")


class TokensError(Exception):
    """The tokens file or a request about it is wrong: one line with what to do."""


@dataclass(frozen=True)
class Grant:
    """One entry of the tokens file. `sha256` is the token's digest, `expires_at` RFC 3339."""

    sha256: str
    client: str
    scopes: tuple[str, ...]
    artifacts: tuple[str, ...]
    expires_at: str

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """ValueError, KeyError or TypeError when it is no grant."""
        if set(value) != {field.name for field in fields(cls)}:
            raise ValueError("wrong members")
        if not (isinstance(value["scopes"], list) and isinstance(value["artifacts"], list)):
            raise ValueError("no lists")
        grant = cls(**value | {"scopes": tuple(value["scopes"]), "artifacts": tuple(value["artifacts"])})
        texts = (grant.sha256, grant.client, grant.expires_at, *grant.scopes, *grant.artifacts)
        if not all(isinstance(each, str) for each in texts) or not set(grant.scopes) <= set(SCOPES):
            raise ValueError("wrong values")
        if grant.expires.tzinfo is None:
            raise ValueError("no time zone")
        return grant

    @property
    def expires(self) -> datetime:
        return datetime.fromisoformat(self.expires_at)


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
    except (ValueError, KeyError, TypeError):
        raise TokensError(
            f"tokens file {path} is not a list of grants {{sha256, client, scopes, artifacts, expires_at}}: "
            "restore it, or remove it and create the tokens again"
        ) from None


class TokensFile:
    """The grants in force: read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        return self._grants


def create_token(tokens: Path, out: Path, *, client: str, scopes: list[str], artifacts: list[str], days: int) -> bool:
    """Make a token, its digest in `tokens`, itself in `out` (0600). Of the token in `out`, if any, nothing stays.

    False when `out` has a token already that is valid and for the same client, scopes and artifacts.
    """
    expires = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    wanted = Grant(
        "", client, tuple(each for each in SCOPES if each in scopes), tuple(sorted(set(artifacts))),
        expires.isoformat().replace("+00:00", "Z"),
    )  # fmt: skip
    with _changing(tokens) as grants:
        earlier = find(grants, token_digest(out.read_bytes().strip())) if out.exists() else None
        if (
            earlier is not None
            and earlier.expires > datetime.now(UTC)
            and replace(earlier, sha256="", expires_at="") == replace(wanted, expires_at="")
        ):
            return False
        token = secrets.token_urlsafe(32).encode()
        grants[:] = [grant for grant in grants if grant is not earlier]
        grants.append(replace(wanted, sha256=token_digest(token)))
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
            document = json.dumps([asdict(grant) for grant in grants], indent=2)
            write_private(path, document.encode() + b"\n")
