"""Who has to agree to what is dangerous for a CA, and what waits for that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Integer, JsonDocument, Text, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_cas", sa.Column("approvals", JsonDocument))
    op.create_table(
        "ca_approvals",
        sa.Column("id", Text, primary_key=True),
        sa.Column("operation", Text, nullable=False),
        sa.Column("ca_id", Text, nullable=False),
        sa.Column("ca_ids", JsonDocument, nullable=False),
        sa.Column("requester", Text, nullable=False),
        sa.Column("digest", Text, nullable=False),
        sa.Column("request", JsonDocument, nullable=False),
        sa.Column("policies", JsonDocument, nullable=False),
        sa.Column("basis", JsonDocument, nullable=False),
        sa.Column("excluded", JsonDocument, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("closed_at", UtcDateTime),
        sa.Column("version", Integer, nullable=False),
    )
    op.create_index("ix_ca_approvals_ca_status", "ca_approvals", ["ca_id", "status"])
    op.create_index("ix_ca_approvals_status_expires", "ca_approvals", ["status", "expires_at"])
    op.create_table(
        "ca_approval_votes",
        sa.Column("approval_id", Text, sa.ForeignKey("ca_approvals.id"), primary_key=True),
        sa.Column("approver", Text, primary_key=True),
        sa.Column("verdict", Text, nullable=False),
        sa.Column("cast_at", UtcDateTime, nullable=False),
        sa.Column("comment", Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("ca_approval_votes")
    op.drop_table("ca_approvals")
    op.drop_column("ca_cas", "approvals")
