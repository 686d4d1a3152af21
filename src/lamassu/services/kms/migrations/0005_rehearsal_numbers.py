"""Which rehearsal a copy was made in, and whether it is over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Boolean, Integer

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "kms_rehearsals", sa.Column("number", Integer, nullable=False, server_default="1")
    )
    op.add_column(
        "kms_rehearsals",
        sa.Column("under_way", Boolean, nullable=False, server_default=sa.true()),
    )


def downgrade() -> None:
    op.drop_column("kms_rehearsals", "under_way")
    op.drop_column("kms_rehearsals", "number")
