"""Who may do what: a bearer token names a client, its scopes and the artifacts it is for."""

import fnmatch
from dataclasses import dataclass

from hxmlops_sharing.tokens import SCOPES


@dataclass(frozen=True)
class Caller:
    """Whoever made a request. `admin` includes the other scopes."""

    client: str
    scopes: frozenset[str]
    artifacts: tuple[str, ...]

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def sees(self, name: str) -> bool:
        """Whether an artifact of this name is in what the token is for; of others nothing is told."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.artifacts)


EVERYONE = Caller("anonymous", frozenset(SCOPES), ("*",))
"""The caller of every request where authentication is off."""
