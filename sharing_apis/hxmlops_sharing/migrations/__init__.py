"""The schema's history (alembic)."""

HEAD = "0002"
"""The newest revision: a database that is there already is not looked at with alembic, whose import takes time."""
