"""Structured logs: one JSON object a line on stderr. Callers log ids and counts, never headers, queries or bodies."""

import logging
import sys

import structlog

SECRET_WORDS = ("authorization", "token", "password", "secret", "cookie")


def configure_logs() -> None:
    """Send structlog's and the standard library's records to stderr as JSON lines."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def hide_secrets(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Processor: a value whose name says it is a secret never gets out."""
    return {
        key: "[hidden]" if any(word in key.lower() for word in SECRET_WORDS) else value for key, value in event.items()
    }
