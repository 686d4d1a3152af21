"""The first tables of the CA."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import (
    Boolean,
    Integer,
    JsonDocument,
    LargeBinary,
    Text,
    UtcDateTime,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_certificates()
    op.create_table(
        "ca_cas",
        sa.Column("id", Text, primary_key=True),
        sa.Column(
            "serial_number",
            Text,
            sa.ForeignKey("ca_certificates.serial_number"),
            nullable=False,
        ),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("level", Integer, nullable=False),
        sa.Column("parent_id", Text, sa.ForeignKey("ca_cas.id")),
        sa.Column("profile_id", Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("revoked_by", Text),
        sa.Column("version", Integer, nullable=False),
        sa.UniqueConstraint("serial_number", name="uq_ca_cas_serial_number"),
    )
    op.create_index("ix_ca_cas_parent_id", "ca_cas", ["parent_id"])
    op.create_index("ix_ca_cas_profile_id", "ca_cas", ["profile_id"])
    op.create_table(
        "ca_profiles",
        sa.Column("id", Text, primary_key=True),
        sa.Column("name", Text, nullable=False),
        sa.Column("content", JsonDocument, nullable=False),
        sa.Column("version", Integer, nullable=False),
    )
    op.create_table(
        "ca_jobs",
        sa.Column("id", Text, primary_key=True),
        sa.Column("ca_ids", JsonDocument, nullable=False),
        sa.Column("revoked_at", UtcDateTime, nullable=False),
        sa.Column("caller", JsonDocument, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("done_at", UtcDateTime),
    )
    op.create_index("ix_ca_jobs_status", "ca_jobs", ["status", "created_at"])
    journal_tables.create(op, "ca")


def _create_certificates() -> None:
    op.create_table(
        "ca_certificates",
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("der", LargeBinary, nullable=False),
        sa.Column("csr", LargeBinary),
        sa.Column("subject", JsonDocument, nullable=False),
        sa.Column("common_name", Text, nullable=False),
        sa.Column("issuer", JsonDocument, nullable=False),
        sa.Column("subject_key_id", Text, nullable=False),
        sa.Column("authority_key_id", Text, nullable=False),
        sa.Column("issuer_ca_id", Text, nullable=False),
        sa.Column("issuer_serial_number", Text, nullable=False),
        sa.Column("issuer_level", Integer, nullable=False),
        sa.Column("not_before", UtcDateTime, nullable=False),
        sa.Column("not_after", UtcDateTime, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("revocation_time", UtcDateTime),
        sa.Column("revocation_reason", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("is_ca", Boolean, nullable=False),
        sa.Column("key_algorithm", Text, nullable=False),
        sa.Column("key_size", Integer, nullable=False),
        sa.Column("engine_id", Text, nullable=False),
        sa.Column("key_usage", JsonDocument, nullable=False),
        sa.Column("extended_key_usages", JsonDocument, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("device_id", Text, nullable=False),
        sa.Column("awaits_binding", Boolean, nullable=False),
        sa.Column("request_key", Text),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("version", Integer, nullable=False),
        sa.UniqueConstraint("request_key", name="uq_ca_certificates_request_key"),
    )
    for columns, name in (
        (["issuer_ca_id", "status"], "issuer_status"),
        (["not_after"], "not_after"),
        (["common_name"], "common_name"),
        (["subject_key_id"], "subject_key_id"),
    ):
        op.create_index(f"ix_ca_certificates_{name}", "ca_certificates", columns)
    op.create_index(
        "ix_ca_certificates_awaiting",
        "ca_certificates",
        ["created_at"],
        postgresql_where=sa.text("awaits_binding"),
        sqlite_where=sa.text("awaits_binding = 1"),
    )


def downgrade() -> None:
    journal_tables.drop(op, "ca")
    for table in ("ca_jobs", "ca_profiles", "ca_cas", "ca_certificates"):
        op.drop_table(table)
