"""Objects and their segments, resumable uploads, aliases, grants, soft deletion, and an audit that is a chain."""

import json

import sqlalchemy as sa
from alembic import op

from hxmlops_evidence.digests import digest_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DIGEST = sa.String(71)
TIME = sa.String(27)
BEFORE_THE_FIRST = "sha256:" + "0" * 64
REFUSE = "the audit is append-only"
LIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    make_tables()
    on_record = op.get_bind()
    as_json = "CAST(min({}) AS json)" if on_record.dialect.name == "postgresql" else "min({})"
    for kind, digests in (("models", ("sha256",)), ("datasets", ("dataset_sha256", "data_model_sha256"))):
        once(kind)
        op.create_index(f"{kind}_by_client", kind, ["created_by"])
        for digest in digests:
            size = digest.replace("sha256", "size")
            on_record.execute(
                sa.text(
                    "INSERT INTO objects (sha256, size, segments, created_at) "  # noqa: S608 (names from above)
                    f"SELECT {digest}, min({size}), {as_json.format(segments(digest, size))}, min(created_at) "
                    f"FROM {kind} WHERE {digest} NOT IN (SELECT sha256 FROM objects) GROUP BY {digest}"
                )
            )
    chain_audit()


def make_tables() -> None:
    op.create_table(
        "objects",
        sa.Column("sha256", DIGEST, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("segments", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "garbage",
        sa.Column("location", sa.String(255), primary_key=True),
        sa.Column("added_at", TIME, nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("segments", sa.JSON, nullable=False),
        sa.Column("upload_metadata", sa.Text, nullable=False),
        sa.Column("sha256", DIGEST),
        sa.Column("crc32", sa.BigInteger),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_index("uploads_by_client", "uploads", ["client"])
    op.create_table(
        "aliases",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("identifier", sa.Integer),
        sa.Column("set_at", TIME, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("aliases_once", "aliases", ["kind", "name", "alias", "revision"], unique=True)
    op.create_table(
        "grants",
        sa.Column("sha256", DIGEST, primary_key=True),
        sa.Column("grant", sa.JSON, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("purpose", sa.String(32), primary_key=True),
        sa.Column("secret", sa.String(64), nullable=False),
    )


def once(kind: str) -> None:
    """A name and version may be there once among those that are not deleted."""
    with op.batch_alter_table(
        kind,
        naming_convention={"uq": "uq_%(table_name)s_%(column_0_name)s"},
        table_kwargs={"sqlite_autoincrement": True},
    ) as table:
        table.add_column(sa.Column("deleted_at", TIME))
        table.add_column(sa.Column("verified", sa.JSON))
        on_sqlite = op.get_bind().dialect.name == "sqlite"
        table.drop_constraint(f"uq_{kind}_name" if on_sqlite else f"{kind}_name_version_key", type_="unique")
    op.create_index(f"{kind}_once", kind, ["name", "version"], unique=True, sqlite_where=LIVE, postgresql_where=LIVE)


def segments(digest: str, size: str) -> str:
    """SQL for the place that the first version's folder store gave to a digest."""
    return f"'[[\"objects/' || substr({digest}, 8, 2) || '/' || substr({digest}, 8) || '\", ' || {size} || ']]'"


def chain_audit() -> None:
    """A new audit, with the lines that were there as the beginning of its chain."""
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_refuses_{change}")
    op.rename_table("audit", "audit_0001")
    audit = op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("identifier", sa.Integer),
        sa.Column("name", sa.String(255)),
        sa.Column("version", sa.String(255)),
        sa.Column("sha256", DIGEST),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("refers_to", sa.Integer),
        sa.Column("previous", DIGEST, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
    )
    previous = BEFORE_THE_FIRST
    olds = bind.execute(sa.text("SELECT * FROM audit_0001 ORDER BY id")).mappings()
    for number, old in enumerate(olds, start=1):
        row = {**old, "id": number, "refers_to": None, "previous": previous}
        if isinstance(row["detail"], str):
            row["detail"] = json.loads(row["detail"])
        previous = digest_of(row)
        op.bulk_insert(audit, [row | {"digest": previous}])
    op.drop_table("audit_0001")
    op.create_index("ix_audit_refers_to", "audit", ["refers_to"])
    op.create_index("audit_of_version", "audit", ["kind", "identifier"])
    if bind.dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSE}'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSE}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_refuses BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
        )
