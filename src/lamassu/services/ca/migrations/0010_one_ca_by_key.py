"""One CA by a key, and by a subject key identifier."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_cas", sa.Column("subject_key_id", Text))
    op.execute(
        "UPDATE ca_cas SET subject_key_id = (SELECT subject_key_id FROM ca_certificates"
        " WHERE ca_certificates.serial_number = ca_cas.serial_number)"
    )
    op.create_index("uq_ca_cas_subject_key_id", "ca_cas", ["subject_key_id"], unique=True)
    op.create_index(
        "uq_ca_cas_key_id",
        "ca_cas",
        ["key_id"],
        unique=True,
        postgresql_where=sa.text("key_id <> ''"),
        sqlite_where=sa.text("key_id <> ''"),
    )


def downgrade() -> None:
    op.drop_index("uq_ca_cas_key_id", "ca_cas")
    op.drop_index("uq_ca_cas_subject_key_id", "ca_cas")
    op.drop_column("ca_cas", "subject_key_id")
