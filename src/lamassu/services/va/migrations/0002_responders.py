"""Delegated OCSP responders of CAs whose key is offline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import LargeBinary, Text, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "va_responders",
        sa.Column("key_id", Text, primary_key=True),
        sa.Column("ca_id", Text, nullable=False),
        sa.Column("engine_id", Text, nullable=False),
        sa.Column("csr", LargeBinary, nullable=False),
        sa.Column("certificate", LargeBinary),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.create_index("ix_va_responders_ca_id", "va_responders", ["ca_id"])


def downgrade() -> None:
    op.drop_table("va_responders")
