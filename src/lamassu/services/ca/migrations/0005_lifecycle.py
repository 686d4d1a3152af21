"""Jobs that tell how far they are, re-issued certificates, and reminders of what expires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import BigInteger, Text, UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ALERTS = sa.text("alert_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("ca_jobs", sa.Column("kind", Text))
    op.add_column("ca_jobs", sa.Column("total", BigInteger))
    op.add_column("ca_jobs", sa.Column("done", BigInteger))
    op.add_column("ca_jobs", sa.Column("announced", BigInteger))
    op.add_column("ca_jobs", sa.Column("place", Text))
    op.create_table(
        "ca_job_exceptions",
        sa.Column("job_id", Text, primary_key=True),
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("status", Text, nullable=False),
        sa.Column("revocation_time", UtcDateTime),
        sa.Column("revocation_reason", Text, nullable=False),
    )
    for name, kind in (
        ("reissued_as", Text),
        ("reissued_at", UtcDateTime),
        ("reissued_from", Text),
        ("alert_at", UtcDateTime),
    ):
        op.add_column("ca_certificates", sa.Column(name, kind))
    op.add_column("ca_cas", sa.Column("alert_at", UtcDateTime))
    for table in ("ca_certificates", "ca_cas"):
        op.create_index(
            f"ix_{table}_alert_at",
            table,
            ["alert_at"],
            postgresql_where=_ALERTS,
            sqlite_where=_ALERTS,
        )
    op.drop_index("ix_ca_certificates_issuer_status", "ca_certificates")
    op.create_index(
        "ix_ca_certificates_issuer_status",
        "ca_certificates",
        ["issuer_ca_id", "status", "serial_number"],
    )
    op.create_table(
        "ca_watermarks",
        sa.Column("name", Text, primary_key=True),
        sa.Column("reached", UtcDateTime, nullable=False),
        sa.Column("serial_number", Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("ca_watermarks")
    op.drop_index("ix_ca_certificates_issuer_status", "ca_certificates")
    op.create_index(
        "ix_ca_certificates_issuer_status", "ca_certificates", ["issuer_ca_id", "status"]
    )
    op.drop_index("ix_ca_cas_alert_at", "ca_cas")
    op.drop_index("ix_ca_certificates_alert_at", "ca_certificates")
    op.drop_column("ca_cas", "alert_at")
    for name in ("alert_at", "reissued_from", "reissued_at", "reissued_as"):
        op.drop_column("ca_certificates", name)
    op.drop_table("ca_job_exceptions")
    for name in ("place", "announced", "done", "total", "kind"):
        op.drop_column("ca_jobs", name)
