"""The first tables of the KMS."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import Boolean, Integer, JsonDocument, Text, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kms_keys",
        sa.Column("key_id", Text, primary_key=True),
        sa.Column("name", Text, nullable=False),
        sa.Column("engine_id", Text, nullable=False),
        sa.Column("algorithm", Text, nullable=False),
        sa.Column("size", Integer, nullable=False),
        sa.Column("purpose", Text, nullable=False),
        sa.Column("public_key", Text, nullable=False),
        sa.Column("tags", JsonDocument, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("has_signed", Boolean, nullable=False),
        sa.Column("version", Integer, nullable=False),
    )
    op.create_index("ix_kms_keys_created_at", "kms_keys", ["created_at"])
    op.create_table(
        "kms_aliases",
        sa.Column("alias", Text, primary_key=True),
        sa.Column(
            "key_id",
            Text,
            sa.ForeignKey("kms_keys.key_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", Integer, nullable=False),
    )
    op.create_index("ix_kms_aliases_key_id", "kms_aliases", ["key_id"])
    journal_tables.create(op, "kms")


def downgrade() -> None:
    journal_tables.drop(op, "kms")
    op.drop_table("kms_aliases")
    op.drop_table("kms_keys")
