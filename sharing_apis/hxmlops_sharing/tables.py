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
    text,
)

metadata = MetaData()

DIGEST = String(71)  # "sha256:" and 64 hexadecimal digits
TIME = String(27)  # RFC 3339, UTC, microseconds: sorts as it reads

LIVE = text("deleted_at IS NULL")


def _version_columns() -> list[Column[int] | Column[str]]:
    return [
        Column("id", Integer, primary_key=True),
        Column("name", String(255), nullable=False),
        Column("version", String(255), nullable=False),
        Column("version_key", String(1100), nullable=False),  # versions.version_key(version)
        Column("tag", Text, nullable=False),
        Column("sha256", DIGEST, nullable=False),
        Column("upload_digest", DIGEST, nullable=False),  # of the metadata as uploaded, to know a retry
        Column("created_at", TIME, nullable=False),
        Column("created_by", Text, nullable=False),
        Column("deleted_at", TIME),  # until the grace period is over it can be restored
        Column("verified", JSON),  # what the server verified when it was uploaded
    ]


def _version_indexes(kind: str, *digests: str) -> list[Index]:
    return [
        Index(f"{kind}_once", "name", "version", unique=True, sqlite_where=LIVE, postgresql_where=LIVE),
        Index(f"{kind}_latest", "name", "version_key", "id"),
        Index(f"{kind}_by_client", "created_by"),
        *(Index(f"ix_{kind}_{digest}", digest) for digest in digests),
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
    *_version_indexes("models", "sha256"),
    sqlite_autoincrement=True,  # an identifier is never given twice
)

datasets = Table(
    "datasets",
    metadata,
    *_version_columns(),
    Column("data_type", String(32), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("dataset_sha256", DIGEST, nullable=False),
    Column("dataset_size", BigInteger, nullable=False),
    Column("dataset_crc32", BigInteger, nullable=False),
    Column("data_model_sha256", DIGEST, nullable=False),
    Column("data_model_size", BigInteger, nullable=False),
    Column("data_model_crc32", BigInteger, nullable=False),
    *_version_indexes("datasets", "sha256", "dataset_sha256", "data_model_sha256"),
    sqlite_autoincrement=True,
)

objects = Table(
    "objects",
    metadata,
    Column("sha256", DIGEST, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("segments", JSON, nullable=False),  # [[location in the store, size], ...], in order
    Column("created_at", TIME, nullable=False),
)
"""Where in the store the bytes of a digest are."""

garbage = Table(
    "garbage",
    metadata,
    Column("location", String(255), primary_key=True),
    Column("added_at", TIME, nullable=False),
)
"""Locations that nothing refers to any more, to be removed from the store."""

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("client", Text, nullable=False),
    Column("size", BigInteger, nullable=False),  # as declared
    Column("received", BigInteger, nullable=False),
    Column("segments", JSON, nullable=False),
    Column("upload_metadata", Text, nullable=False),  # as tus sends it
    Column("sha256", DIGEST),  # when all is received
    Column("crc32", BigInteger),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    Index("uploads_by_client", "client"),
)
"""Resumable uploads (tus) of files that no version has yet."""

aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("identifier", Integer),  # of the version; none: the alias was removed
    Column("set_at", TIME, nullable=False),
    Column("set_by", Text, nullable=False),
    Index("aliases_once", "kind", "name", "alias", "revision", unique=True),
    sqlite_autoincrement=True,
)
"""The history of each alias; its highest revision is what it is now."""

grants = Table(
    "grants",
    metadata,
    Column("sha256", DIGEST, primary_key=True),  # of the token
    Column("grant", JSON, nullable=False),
    Column("seen_at", TIME, nullable=False),
)
"""Tokens that servers of this database have seen in force, so that each is audited once."""

secrets = Table(
    "secrets",
    metadata,
    Column("purpose", String(32), primary_key=True),
    Column("secret", String(64), nullable=False),  # base64
)
"""Keys that the servers of one database share, each made when it is first needed."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # without gaps
    Column("at", TIME, nullable=False),
    Column("client", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("identifier", Integer),
    Column("name", String(255)),
    Column("version", String(255)),
    Column("sha256", DIGEST),
    Column("detail", JSON, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("refers_to", Integer),  # the line that this one ends
    Column("previous", DIGEST, nullable=False),
    Column("digest", DIGEST, nullable=False),  # of all above, see audit.py
    Index("ix_audit_refers_to", "refers_to"),
    Index("audit_of_version", "kind", "identifier"),
)
"""Append-only: triggers of the migration refuse to change or remove a row."""
