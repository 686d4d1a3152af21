"""Items."""

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import journal_tables
from lamassu.platform.database.types import JsonDocument, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sample_items",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("count", sa.Integer),
        sa.Column("big", sa.BigInteger),
        sa.Column("flag", sa.Boolean),
        sa.Column("at", UtcDateTime),
        sa.Column("tags", JsonDocument),
        sa.Column("blob", sa.LargeBinary),
    )
    journal_tables.create(op, "sample")


def downgrade() -> None:
    journal_tables.drop(op, "sample")
    op.drop_table("sample_items")
