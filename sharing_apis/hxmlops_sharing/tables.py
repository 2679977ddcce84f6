"""The database's tables, as `migrations/` makes them. A row of `models` or `datasets` is one immutable version."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

DIGEST = String(71)  # "sha256:" and 64 hexadecimal digits
TIME = String(27)  # RFC 3339, UTC, microseconds: sorts as it reads


def _version_columns() -> list[Column[int] | Column[str]]:
    return [
        Column("id", Integer, primary_key=True),
        Column("name", String(255), nullable=False),
        Column("version", String(255), nullable=False),
        Column("version_key", String(1100), nullable=False),  # versions.version_key(version)
        Column("tag", Text, nullable=False),
        Column("sha256", DIGEST, nullable=False, index=True),
        Column("upload_digest", DIGEST, nullable=False),  # of the metadata as uploaded, to know a retry
        Column("created_at", TIME, nullable=False),
        Column("created_by", Text, nullable=False),
    ]


models = Table(
    "models",
    metadata,
    *_version_columns(),
    Column("status", String(32), nullable=False),
    Column("class", Text),
    Column("library", Text, nullable=False),
    Column("library_version", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("characteristics", JSON, nullable=False),
    Column("size", BigInteger, nullable=False),
    UniqueConstraint("name", "version"),
    Index("models_latest", "name", "version_key", "id"),
    sqlite_autoincrement=True,  # an identifier is never given twice
)

datasets = Table(
    "datasets",
    metadata,
    *_version_columns(),
    Column("data_type", String(32), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("dataset_sha256", DIGEST, nullable=False, index=True),
    Column("dataset_size", BigInteger, nullable=False),
    Column("dataset_crc32", BigInteger, nullable=False),
    Column("data_model_sha256", DIGEST, nullable=False, index=True),
    Column("data_model_size", BigInteger, nullable=False),
    Column("data_model_crc32", BigInteger, nullable=False),
    UniqueConstraint("name", "version"),
    Index("datasets_latest", "name", "version_key", "id"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", TIME, nullable=False),
    Column("client", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("identifier", Integer, nullable=False),
    Column("name", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("sha256", DIGEST, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("request_id", String(64), nullable=False),
    sqlite_autoincrement=True,
)
"""Append-only: triggers of the migration refuse to change or remove a row."""
