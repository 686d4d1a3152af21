"""CAs that have their key and wait for an offline root's signature."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import (
    Integer,
    JsonDocument,
    LargeBinary,
    Text,
    UtcDateTime,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ca_awaited",
        sa.Column("id", Text, primary_key=True),
        sa.Column("csr", LargeBinary, nullable=False),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("key_algorithm", Text, nullable=False),
        sa.Column("key_size", Integer, nullable=False),
        sa.Column("engine_id", Text, nullable=False),
        sa.Column("subject", JsonDocument, nullable=False),
        sa.Column("root_id", Text, nullable=False),
        sa.Column("profile_id", Text, nullable=False),
        sa.Column("metadata", JsonDocument, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("ca_awaited")
