"""The first tables of the VA."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import (
    BigInteger,
    Boolean,
    Integer,
    LargeBinary,
    Text,
    UtcDateTime,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "va_roles",
        sa.Column("ca_ski", Text, primary_key=True),
        sa.Column("ca_id", Text, nullable=False),
        sa.Column("refresh_interval_us", BigInteger, nullable=False),
        sa.Column("validity_us", BigInteger, nullable=False),
        sa.Column("subject_key_id_signer", Text, nullable=False),
        sa.Column("regenerate_on_revoke", Boolean, nullable=False),
        sa.Column("next_number", BigInteger, nullable=False),
        sa.Column("version", Integer, nullable=False),
    )
    op.create_index("ix_va_roles_ca_id", "va_roles", ["ca_id"])
    op.create_table(
        "va_crls",
        sa.Column("ca_ski", Text, primary_key=True),
        sa.Column("number", BigInteger, primary_key=True, autoincrement=False),
        sa.Column("der", LargeBinary, nullable=False),
        sa.Column("this_update", UtcDateTime, nullable=False),
        sa.Column("next_update", UtcDateTime, nullable=False),
        sa.Column("entries_digest", Text, nullable=False),
    )
    journal_tables.create(op, "va")


def downgrade() -> None:
    journal_tables.drop(op, "va")
    op.drop_table("va_crls")
    op.drop_table("va_roles")
