"""Times as the database has them: RFC 3339, UTC, microseconds; they sort as they read."""

from datetime import UTC, datetime, timedelta


def now() -> str:
    return shifted()


def shifted(**by: float) -> str:
    """Now, moved by so many days, hours, seconds (as `timedelta` takes them)."""
    return (datetime.now(UTC) + timedelta(**by)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
