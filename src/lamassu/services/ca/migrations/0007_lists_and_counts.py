"""An index for each documented question, counts that are kept, and an archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.optional_indexes import create_trigram_index
from lamassu.platform.database.types import (
    BigInteger,
    JsonDocument,
    LargeBinary,
    Text,
    UtcDateTime,
    sequence_key,
)

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLE = "ca_certificates"
_PARTIAL = (
    ("unusual_status", ["status", "serial_number"], "status <> 'ACTIVE'"),
    ("issuer_unusual", ["issuer_ca_id", "status", "serial_number"], "status <> 'ACTIVE'"),
    ("revoked", ["revocation_time", "serial_number"], "revocation_time IS NOT NULL"),
    (
        "reason",
        ["revocation_reason", "serial_number"],
        "revocation_reason <> 'Unspecified'",
    ),
    ("type", ["type", "serial_number"], "type <> 'IMPORTED_WITHOUT_KEY'"),
    ("engine", ["engine_id", "serial_number"], "engine_id <> ''"),
    ("of_cas", ["serial_number"], "is_ca"),
)
_DAY = "coalesce(to_char(not_after AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '9999-12-31')"


def upgrade() -> None:
    _create_indexes()
    _create_counts()
    op.create_table(
        "ca_archived_certificates",
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("issuer_ca_id", Text, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("revocation_time", UtcDateTime),
        sa.Column("revocation_reason", Text, nullable=False),
        sa.Column("not_after", UtcDateTime, nullable=False),
        sa.Column("archived_at", UtcDateTime, nullable=False),
        sa.Column("der", LargeBinary, nullable=False),
        sa.Column("csr", LargeBinary),
        sa.Column("content", JsonDocument, nullable=False),
    )


def _create_indexes() -> None:
    op.drop_index("ix_ca_certificates_not_after", _TABLE)
    op.drop_index("ix_ca_certificates_issuer_status", _TABLE)
    for name, columns in (
        ("not_after", ["not_after", "serial_number"]),
        ("not_before", ["not_before"]),
        ("issuer", ["issuer_ca_id", "serial_number"]),
    ):
        op.create_index(f"ix_ca_certificates_{name}", _TABLE, columns)
    op.create_index(
        "ix_ca_certificates_folded_name", _TABLE, [sa.func.lower(sa.column("common_name"))]
    )
    for name, columns, where in _PARTIAL:
        op.create_index(
            f"ix_ca_certificates_{name}",
            _TABLE,
            columns,
            postgresql_where=sa.text(where),
            sqlite_where=sa.text(where),
        )
    if op.get_bind().dialect.name != "postgresql":
        return
    op.create_index(
        "ix_ca_certificates_metadata",
        _TABLE,
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=sa.text("metadata <> '{}'"),
    )
    op.create_index(
        "ix_ca_certificates_usages",
        _TABLE,
        ["key_usage", "extended_key_usages"],
        postgresql_using="gin",
    )
    create_trigram_index(op, "ix_ca_certificates_common_name_parts", _TABLE, "common_name")


def _create_counts() -> None:
    for table, key in (
        ("ca_certificate_counts", ()),
        ("ca_certificate_changes", (sa.Column("id", sequence_key(), primary_key=True),)),
    ):
        op.create_table(
            table,
            *key,
            sa.Column("issuer_ca_id", Text, primary_key=not key, nullable=False),
            sa.Column("status", Text, primary_key=not key, nullable=False),
            sa.Column("expires_on", Text, primary_key=not key, nullable=False),
            sa.Column("certificates", BigInteger, nullable=False),
        )
    postgresql = op.get_bind().dialect.name == "postgresql"
    day = _DAY if postgresql else "substr(not_after, 1, 10)"
    op.execute(
        "INSERT INTO ca_certificate_counts"  # noqa: S608 - made of names, no values
        " (issuer_ca_id, status, expires_on, certificates)"
        f" SELECT issuer_ca_id, status, {day}, count(*) FROM {_TABLE} GROUP BY 1, 2, 3"
    )
    if postgresql:
        _count_on_postgresql()
    else:
        _count_on_sqlite()


def _count_on_postgresql() -> None:
    """Rows of changes, folded later: nobody waits for another's commit. Once for a statement,
    whatever it touches."""
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(
        f"""
        CREATE FUNCTION ca_count_certificates() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                INSERT INTO {schema}.ca_certificate_changes
                        (issuer_ca_id, status, expires_on, certificates)
                    SELECT issuer_ca_id, status, {_DAY}, count(*) FROM come GROUP BY 1, 2, 3;
            ELSIF TG_OP = 'DELETE' THEN
                INSERT INTO {schema}.ca_certificate_changes
                        (issuer_ca_id, status, expires_on, certificates)
                    SELECT issuer_ca_id, status, {_DAY}, -count(*) FROM gone GROUP BY 1, 2, 3;
            ELSE
                INSERT INTO {schema}.ca_certificate_changes
                        (issuer_ca_id, status, expires_on, certificates)
                    SELECT issuer_ca_id, status, expires_on, sum(n) FROM (
                        SELECT issuer_ca_id, status, {_DAY} AS expires_on, 1 AS n FROM come
                        UNION ALL
                        SELECT issuer_ca_id, status, {_DAY}, -1 FROM gone
                    ) AS moved GROUP BY 1, 2, 3 HAVING sum(n) <> 0;
            END IF;
            RETURN NULL;
        END $$
        """  # noqa: S608 - made of names, no values
    )
    for deed, seen in (
        ("INSERT", "NEW TABLE AS come"),
        ("UPDATE", "OLD TABLE AS gone NEW TABLE AS come"),
        ("DELETE", "OLD TABLE AS gone"),
    ):
        op.execute(
            f"CREATE TRIGGER ca_count_{deed.lower()} AFTER {deed} ON {_TABLE}"
            f" REFERENCING {seen} FOR EACH STATEMENT EXECUTE FUNCTION ca_count_certificates()"
        )


def _count_on_sqlite() -> None:
    """The one writer counts at once."""
    for deed, event, when, steps in (
        ("insert", "INSERT", "", (("new", 1),)),
        ("delete", "DELETE", "", (("old", -1),)),
        (
            "update",
            "UPDATE OF issuer_ca_id, status, not_after",
            " WHEN (old.issuer_ca_id, old.status, old.not_after)"
            " IS NOT (new.issuer_ca_id, new.status, new.not_after)",
            (("old", -1), ("new", 1)),
        ),
    ):
        counted = " ".join(
            "INSERT INTO ca_certificate_counts"  # noqa: S608 - likewise
            " (issuer_ca_id, status, expires_on, certificates)"
            f" VALUES ({row}.issuer_ca_id, {row}.status, substr({row}.not_after, 1, 10), {n})"
            " ON CONFLICT (issuer_ca_id, status, expires_on)"
            " DO UPDATE SET certificates = certificates + excluded.certificates;"
            for row, n in steps
        )
        op.execute(
            f"CREATE TRIGGER ca_count_{deed} AFTER {event} ON {_TABLE}"
            f" FOR EACH ROW{when} BEGIN {counted} END"
        )


def downgrade() -> None:
    for deed in ("insert", "update", "delete"):
        on = f" ON {_TABLE}" if op.get_bind().dialect.name == "postgresql" else ""
        op.execute(f"DROP TRIGGER ca_count_{deed}{on}")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION ca_count_certificates()")
        op.execute("DROP INDEX IF EXISTS ix_ca_certificates_common_name_parts")
        op.drop_index("ix_ca_certificates_usages", _TABLE)
        op.drop_index("ix_ca_certificates_metadata", _TABLE)
    for name in ("ca_archived_certificates", "ca_certificate_changes", "ca_certificate_counts"):
        op.drop_table(name)
    plain = ["folded_name", "issuer", "not_before", "not_after"]
    for name in [name for name, *_ in _PARTIAL] + plain:
        op.drop_index(f"ix_ca_certificates_{name}", _TABLE)
    op.create_index("ix_ca_certificates_not_after", _TABLE, ["not_after"])
    op.create_index(
        "ix_ca_certificates_issuer_status", _TABLE, ["issuer_ca_id", "status", "serial_number"]
    )
