"""Backups of keys, and copies that a rehearsal has to remove again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import JsonDocument, Text, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kms_backups",
        sa.Column("id", Text, primary_key=True),
        sa.Column("engine_id", Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("sha256", Text, nullable=False),
        sa.Column("key_ids", JsonDocument, nullable=False),
        sa.Column("rehearsed_at", UtcDateTime),
        sa.Column("rehearsed_in", Text, nullable=False),
    )
    op.create_table(
        "kms_rehearsals",
        sa.Column(
            "key_id",
            Text,
            sa.ForeignKey("kms_keys.key_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("engine_id", Text, primary_key=True),
    )


def downgrade() -> None:
    op.drop_table("kms_rehearsals")
    op.drop_table("kms_backups")
