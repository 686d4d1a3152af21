"""Keys on their way from one engine to another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Text, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kms_moves",
        sa.Column(
            "key_id",
            Text,
            sa.ForeignKey("kms_keys.key_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("source", Text, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("step", Text, nullable=False),
        sa.Column("begun_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("kms_moves")
