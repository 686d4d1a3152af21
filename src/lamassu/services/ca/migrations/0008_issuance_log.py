"""The issuance log: entries, tiles, head, and what witnesses and this witness signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from lamassu.platform.database.types import BigInteger, Integer, LargeBinary, Text, UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ca_log_entries",
        sa.Column("position", BigInteger, primary_key=True, autoincrement=False),
        sa.Column("serial_number", Text),
        sa.Column("body", Text, nullable=False),
    )
    op.create_index(
        "ix_ca_log_entries_serial_number", "ca_log_entries", ["serial_number", "position"]
    )
    op.create_table(
        "ca_log_tiles",
        sa.Column("level", Integer, primary_key=True, autoincrement=False),
        sa.Column("number", BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hashes", LargeBinary, nullable=False),
    )
    head = op.create_table(
        "ca_log_head",
        sa.Column("id", Integer, primary_key=True, autoincrement=False),
        sa.Column("size", BigInteger, nullable=False),
        sa.Column("root", LargeBinary, nullable=False),
        sa.Column("position", BigInteger, nullable=False),
        sa.Column("origin", Text, nullable=False),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("signed_size", BigInteger, nullable=False),
        sa.Column("note", Text, nullable=False),
        sa.Column("witnessed", Text, nullable=False),
        sa.Column("adopt_after", Text),
        sa.Column("adopt_before", UtcDateTime, nullable=False),
        sa.Column("adopted", BigInteger, nullable=False),
        sa.Column("witness_name", Text, nullable=False),
        sa.Column("witness_key_id", Text, nullable=False),
        sa.CheckConstraint("id = 1", name="ca_log_head_is_one_row"),
    )
    op.create_table(
        "ca_log_cosignatures",
        sa.Column("witness", Text, primary_key=True),
        sa.Column("size", BigInteger, nullable=False),
        sa.Column("line", Text, nullable=False),
        sa.Column("signed_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "ca_log_witnessed",
        sa.Column("origin", Text, primary_key=True),
        sa.Column("size", BigInteger, nullable=False),
        sa.Column("root", LargeBinary, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
    )
    bind = op.get_bind()
    older = bind.execute(sa.text("SELECT 1 FROM ca_certificates LIMIT 1")).first()
    bind.execute(
        head.insert().values(
            id=1,
            size=0,
            root=hashlib.sha256(b"").digest(),
            position=0,
            origin="",
            key_id="",
            signed_size=0,
            note="",
            witnessed="",
            # rows from before the log are taken into it when the services start
            adopt_after=None if older is None else "",
            adopt_before=datetime.now(UTC),
            adopted=0,
            witness_name="",
            witness_key_id="",
        )
    )


def downgrade() -> None:
    for table in (
        "ca_log_witnessed",
        "ca_log_cosignatures",
        "ca_log_head",
        "ca_log_tiles",
        "ca_log_entries",
    ):
        op.drop_table(table)
