"""What needs a key, where a key came from, and how many there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import BigInteger, Text, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("kms_keys", sa.Column("origin", Text, nullable=False, server_default="generated"))
    op.create_index("ix_kms_keys_engine_id_algorithm", "kms_keys", ["engine_id", "algorithm"])
    op.create_index("ix_kms_keys_name", "kms_keys", ["name"])
    op.create_table(
        "kms_bindings",
        sa.Column(
            "key_id",
            Text,
            sa.ForeignKey("kms_keys.key_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("resource_type", Text, primary_key=True),
        sa.Column("resource_id", Text, primary_key=True),
        sa.Column("bound_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "kms_counts",
        sa.Column("engine_id", Text, primary_key=True),
        sa.Column("algorithm", Text, primary_key=True),
        sa.Column("purpose", Text, primary_key=True),
        sa.Column("keys", BigInteger, nullable=False),
    )
    op.execute(
        "INSERT INTO kms_counts (engine_id, algorithm, purpose, keys)"
        " SELECT engine_id, algorithm, purpose, count(*) FROM kms_keys"
        " GROUP BY engine_id, algorithm, purpose"
    )


def downgrade() -> None:
    op.drop_table("kms_counts")
    op.drop_table("kms_bindings")
    op.drop_index("ix_kms_keys_name", "kms_keys")
    op.drop_index("ix_kms_keys_engine_id_algorithm", "kms_keys")
    op.drop_column("kms_keys", "origin")
