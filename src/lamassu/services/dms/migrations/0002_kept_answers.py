"""Answers of requests that may be repeated."""

from __future__ import annotations

from alembic import op

from lamassu.platform.database import kept_answers

revision = "0002"
down_revision = "dmsmanager_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kept_answers.create(op, "dmsmanager")


def downgrade() -> None:
    kept_answers.drop(op, "dmsmanager")
