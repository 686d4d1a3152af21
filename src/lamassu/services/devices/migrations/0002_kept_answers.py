"""Answers of requests that may be repeated."""

from __future__ import annotations

from alembic import op

from lamassu.platform.database import kept_answers

revision = "0002"
down_revision = "devicemanager_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kept_answers.create(op, "devicemanager")


def downgrade() -> None:
    kept_answers.drop(op, "devicemanager")
