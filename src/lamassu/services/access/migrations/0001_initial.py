"""The first tables of access."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import Integer, LargeBinary, Text, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_credentials",
        sa.Column("serial_number", Text, primary_key=True),
        sa.Column("kind", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("der", LargeBinary, nullable=False),
        sa.Column("not_before", UtcDateTime, nullable=False),
        sa.Column("not_after", UtcDateTime, nullable=False),
        sa.Column("revoked_at", UtcDateTime),
        sa.Column("version", Integer, nullable=False),
    )
    op.create_index("ix_access_credentials_not_after", "access_credentials", ["not_after"])
    op.create_table(
        "access_authorities",
        sa.Column("role", Text, primary_key=True),
        sa.Column("generation", Integer, primary_key=True, autoincrement=False),
        sa.Column("der", LargeBinary, nullable=False),
        sa.Column("key_id", Text),
        sa.Column("not_after", UtcDateTime, nullable=False),
    )
    op.create_table(
        "access_state",
        sa.Column("key", Text, primary_key=True),
        sa.Column("value", Text, nullable=False),
    )
    journal_tables.create(op, "access")


def downgrade() -> None:
    journal_tables.drop(op, "access")
    op.drop_table("access_state")
    op.drop_table("access_authorities")
    op.drop_table("access_credentials")
