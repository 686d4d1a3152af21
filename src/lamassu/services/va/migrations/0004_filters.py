"""Revocation filters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import BigInteger, LargeBinary, Text, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, default in (("filter_interval_us", "0"), ("next_filter_number", "1")):
        op.add_column(
            "va_roles", sa.Column(name, BigInteger, nullable=False, server_default=default)
        )
    op.create_table(
        "va_filters",
        sa.Column("ca_ski", Text, primary_key=True),
        sa.Column("number", BigInteger, primary_key=True, autoincrement=False),
        sa.Column("base", BigInteger, nullable=False),
        sa.Column("content", LargeBinary, nullable=False),
        sa.Column("this_update", UtcDateTime, nullable=False),
        sa.Column("next_update", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("va_filters")
    op.drop_column("va_roles", "next_filter_number")
    op.drop_column("va_roles", "filter_interval_us")
