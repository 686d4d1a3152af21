"""Answers of requests that may be repeated."""

from __future__ import annotations

from alembic import op

from lamassu.platform.database import kept_answers

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kept_answers.create(op, "kms")


def downgrade() -> None:
    kept_answers.drop(op, "kms")
