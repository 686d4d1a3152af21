"""Generations of a CA: the same subject under a new key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("ca_cas") as cas:
        cas.add_column(sa.Column("successor_id", Text))
        cas.add_column(sa.Column("lineage_id", Text))
        cas.create_unique_constraint("uq_ca_cas_successor_id", ["successor_id"])
        cas.create_index("ix_ca_cas_lineage_id", ["lineage_id"])


def downgrade() -> None:
    with op.batch_alter_table("ca_cas") as cas:
        cas.drop_index("ix_ca_cas_lineage_id")
        cas.drop_constraint("uq_ca_cas_successor_id")
        cas.drop_column("lineage_id")
        cas.drop_column("successor_id")
