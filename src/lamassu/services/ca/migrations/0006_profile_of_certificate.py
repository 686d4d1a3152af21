"""Which stored profile decided a certificate's content."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import Text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_certificates", sa.Column("profile_id", Text))
    op.create_index(
        "ix_ca_certificates_profile_id", "ca_certificates", ["profile_id", "serial_number"]
    )


def downgrade() -> None:
    op.drop_index("ix_ca_certificates_profile_id", "ca_certificates")
    op.drop_column("ca_certificates", "profile_id")
