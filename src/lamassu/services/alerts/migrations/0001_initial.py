"""The latest event of each type, and how far each service's events were counted.

Revision ID: alerts_0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import BigInteger, JsonDocument, Text, UtcDateTime

revision = "alerts_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the service's tables."""
    op.create_table(
        "alerts_latest",
        sa.Column("event_type", Text, primary_key=True),
        sa.Column("event", JsonDocument, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.Column("counter", BigInteger, nullable=False),
    )
    op.create_table(
        "alerts_positions",
        sa.Column("source", Text, primary_key=True),
        sa.Column("position", BigInteger, nullable=False),
    )
    journal_tables.create(op, "alerts")


def downgrade() -> None:
    """Remove them, with all that they hold."""
    journal_tables.drop(op, "alerts")
    op.drop_table("alerts_positions")
    op.drop_table("alerts_latest")
