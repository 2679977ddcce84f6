"""Models, datasets and the append-only audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DIGEST = sa.String(71)
TIME = sa.String(27)


def upgrade() -> None:
    op.create_table(
        "models",
        *version_columns(),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("class", sa.Text),
        sa.Column("library", sa.Text, nullable=False),
        sa.Column("library_version", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("characteristics", sa.JSON, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "version"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "datasets",
        *version_columns(),
        sa.Column("data_type", sa.String(32), nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("dataset_sha256", DIGEST, nullable=False),
        sa.Column("dataset_size", sa.BigInteger, nullable=False),
        sa.Column("dataset_crc32", sa.BigInteger, nullable=False),
        sa.Column("data_model_sha256", DIGEST, nullable=False),
        sa.Column("data_model_size", sa.BigInteger, nullable=False),
        sa.Column("data_model_crc32", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "version"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("identifier", sa.Integer, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sqlite_autoincrement=True,
    )
    for table in ("models", "datasets"):
        op.create_index(f"{table}_latest", table, ["name", "version_key", "id"])
        op.create_index(f"ix_{table}_sha256", table, ["sha256"])
    op.create_index("ix_datasets_dataset_sha256", "datasets", ["dataset_sha256"])
    op.create_index("ix_datasets_data_model_sha256", "datasets", ["data_model_sha256"])
    for change in ("UPDATE", "DELETE") if op.get_bind().dialect.name == "sqlite" else ():
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
        )


def version_columns() -> list[sa.Column[int] | sa.Column[str]]:
    return [
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("version_key", sa.String(1100), nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("upload_digest", DIGEST, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
    ]
