"""Devices and the certificates that they claim.

Revision ID: devicemanager_0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import (
    BigInteger,
    Integer,
    JsonDocument,
    Text,
    UtcDateTime,
)

revision = "devicemanager_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the service's tables."""
    op.create_table(
        "devicemanager_devices",
        sa.Column("id", Text, primary_key=True),
        sa.Column("lookalike", Text, nullable=False),
        sa.Column("dms_id", Text, nullable=False),
        sa.Column("icon", Text, nullable=False),
        sa.Column("icon_color", Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("tags", JsonDocument, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("slot_status", Text),
        sa.Column("active_version", Integer),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("timeline", JsonDocument, nullable=False),
        sa.Column("decommissioned_at", UtcDateTime),
        sa.Column("deleted_at", UtcDateTime),
        sa.Column("version", BigInteger, nullable=False),
    )
    op.create_index(
        "devicemanager_devices_lookalike", "devicemanager_devices", ["lookalike"], unique=True
    )
    op.create_index("devicemanager_devices_dms", "devicemanager_devices", ["dms_id", "id"])
    op.create_index("devicemanager_devices_created", "devicemanager_devices", ["created_at", "id"])
    op.create_table(
        "devicemanager_certificates",
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("device_id", Text, nullable=False),
        sa.Column("number", Integer),
        sa.Column("ca_id", Text),
        sa.Column("certificate_sha256", Text),
        sa.Column("mode", Text),
        sa.Column("bound_at", UtcDateTime),
        sa.Column("status_before", Text),
        sa.Column("first_used_at", UtcDateTime),
        sa.Column("refused_at", UtcDateTime),
        sa.UniqueConstraint("device_id", "number", name="devicemanager_certificates_slot"),
    )
    op.create_index(
        "devicemanager_certificates_sha256",
        "devicemanager_certificates",
        ["certificate_sha256"],
        unique=True,
    )
    journal_tables.create(op, "devicemanager")


def downgrade() -> None:
    """Remove them, with all that they hold."""
    journal_tables.drop(op, "devicemanager")
    op.drop_table("devicemanager_certificates")
    op.drop_table("devicemanager_devices")
