"""Structured logs: one JSON object a line on stderr. Callers log ids and counts, never headers, queries or bodies.

Should a secret get into a line all the same, by an exception's text or a library's message, it is taken out here: what
has a name that says so, and what looks like one.
"""

import functools
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

HIDDEN = "[hidden]"
SECRET_WORDS = (
    "authorization", "token", "password", "passwd", "passphrase", "secret", "cookie", "credential", "api_key", "apikey",
    "access_key", "private_key", "jwt", "bearer",
)  # fmt: skip
"""In the name of a field: its value never gets out."""

_NAME = (
    r"[\w.-]*(?:authorization|token|passw(?:or)?d|passphrase|secret|cookie|credential|api[_-]?key|access[_-]?key|"
    r"private[_-]?key|jwt)[\w.-]*"
)
_VALUE = r"""(?:(?P<quote>\\*["']).*?(?:(?<!\\)(?P=quote)|\Z)|[^\s&]+)"""
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", HIDDEN),
        (r"AGE-SECRET-KEY-1[A-Z0-9]+", HIDDEN),
        (r"(\b[a-z][a-z0-9+.-]*:/{1,2})[^\s\"'<>]*@", rf"\1{HIDDEN}@"),  # user and password of a URL
        (r"\b(bearer|negotiate)(\s+)(?!token\b)[^\s,;\"']+", rf"\1\2{HIDDEN}"),
        (r"\b(basic)(\s+)[A-Za-z0-9+/=]{8,}", rf"\1\2{HIDDEN}"),
        (r"\bey[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){0,3}", HIDDEN),  # JWT, JWE
        (r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,}\b", HIDDEN),  # AWS
        (r"\b(?:gh[posu]|glpat|xox[abps]|sk)[-_][A-Za-z0-9_-]{16,}", HIDDEN),
        (rf"(\b{_NAME}\\*[\"']?\s*(?:=|:|%3D)\s*){_VALUE}", rf"\1{HIDDEN}"),  # queries, headers, JSON, DSNs
        (rf"(\b(?:x-amz-signature|signature|sig)(?:=|%3D)){_VALUE}", rf"\1{HIDDEN}"),  # presigned URLs
    )
)
_TRACES = re.compile(
    ":/|ey|private|secret|bearer|negotiate|basic|akia|asia|aroa|aida|abia|acca|gh[posu]|glpat|xox|sk[-_]|authorization|"
    "token|passw|passphrase|cookie|credential|key|jwt|sig"
)
"""Each rule needs one of these: most texts have none and cost a microsecond."""
_RUN = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{40,}={0,2}(?![A-Za-z0-9+/_=-])")
"""As long as AWS's secret keys (40 characters) and our own tokens (43)."""


def configure_logs() -> None:
    """Send structlog's and the standard library's records to stderr as JSON lines."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, hide_secrets, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                hide_secrets,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def hide_secrets(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Processor: secrets become `[hidden]`, by their names and by their looks."""
    return {str(key): _scrubbed(str(key), value) for key, value in event.items()}


def scrub(text: str) -> str:
    """A text without what looks like a secret."""
    if _TRACES.search(text.lower()):
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
    return _RUN.sub(_unless_plain, text) if len(text) >= 40 else text


def _scrubbed(name: str, value: Any) -> Any:
    if _is_secret(name):
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {scrub(str(key)): _scrubbed(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(name, each) for each in value]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}"
    return scrub(value if isinstance(value, str) else repr(value))


@functools.lru_cache(1024)
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def _unless_plain(match: re.Match[str]) -> str:
    """Digests and most paths stay: they lack digits, capitals or small letters."""
    run = match[0]
    return HIDDEN if all(any(map(is_kind, run)) for is_kind in (str.isdigit, str.isupper, str.islower)) else run
