"""Nothing but a journal."""

from alembic import op

from lamassu.platform.database import journal_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    journal_tables.create(op, "other")


def downgrade() -> None:
    journal_tables.drop(op, "other")
