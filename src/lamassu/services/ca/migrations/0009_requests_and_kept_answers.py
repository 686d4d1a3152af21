"""Certificate requests that were refused, who brought the others, and answers of requests that
may be repeated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database import kept_answers
from lamassu.platform.database.types import LargeBinary, Text, UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_REFUSED = "ca_refused_requests"


def upgrade() -> None:
    op.add_column("ca_certificates", sa.Column("requested_by", Text))
    op.create_table(
        _REFUSED,
        sa.Column("id", Text, primary_key=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("ca_id", Text, nullable=False),
        sa.Column("profile_id", Text, nullable=False),
        sa.Column("requested_by", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("device_id", Text, nullable=False),
        sa.Column("common_name", Text, nullable=False),
        sa.Column("csr", LargeBinary, nullable=False),
        sa.Column("code", Text, nullable=False),
        sa.Column("reason", Text, nullable=False),
    )
    op.create_index("ix_ca_refused_requests_age", _REFUSED, ["created_at", "id"])
    op.create_index("ix_ca_refused_requests_requester", _REFUSED, ["requested_by", "created_at"])
    kept_answers.create(op, "ca")


def downgrade() -> None:
    kept_answers.drop(op, "ca")
    op.drop_table(_REFUSED)
    op.drop_column("ca_certificates", "requested_by")
