"""DMSs, uses of bootstrap certificates, and what was told of.

Revision ID: dmsmanager_0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import BigInteger, Boolean, JsonDocument, Text, UtcDateTime

revision = "dmsmanager_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the service's tables."""
    op.create_table(
        "dmsmanager_dms",
        sa.Column("id", Text, primary_key=True),
        sa.Column("name", Text, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("settings", JsonDocument, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("version", BigInteger, nullable=False),
    )
    op.create_index("dmsmanager_dms_name", "dmsmanager_dms", ["name", "id"])
    op.create_index("dmsmanager_dms_created", "dmsmanager_dms", ["created_at", "id"])
    op.create_table(
        "dmsmanager_bootstrap_uses",
        sa.Column("issuer_sha256", Text, primary_key=True),
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("dms_id", Text, nullable=False),
        sa.Column("device_id", Text, nullable=False),
        sa.Column("used_at", UtcDateTime, nullable=False),
        sa.Column("contested", Boolean, nullable=False),
    )
    op.create_table(
        "dmsmanager_announcements",
        sa.Column("device_id", Text, primary_key=True),
        sa.Column("device_version", BigInteger, nullable=False),
    )
    journal_tables.create(op, "dmsmanager")


def downgrade() -> None:
    """Remove them, with all that they hold."""
    journal_tables.drop(op, "dmsmanager")
    op.drop_table("dmsmanager_announcements")
    op.drop_table("dmsmanager_bootstrap_uses")
    op.drop_table("dmsmanager_dms")
