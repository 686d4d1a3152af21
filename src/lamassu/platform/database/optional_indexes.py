"""Indexes that need more than every PostgreSQL offers: made where they can be."""

from __future__ import annotations

from types import ModuleType

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger(__name__)

_WHERE_IS_IT = text(
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
    " WHERE extname = 'pg_trgm'"
)


def create_trigram_index(op: ModuleType, name: str, table: str, column: str) -> None:
    """Parts of texts, found by their groups of three letters (PostgreSQL's `pg_trgm`).

    Without the extension, or the right to create it, there is none: such questions are then
    answered by reading all rows, within the time that a list may take. `op` is alembic's.
    """
    bind = op.get_bind()
    schema = bind.scalar(_WHERE_IS_IT)
    if schema is None:
        try:
            with bind.begin_nested():
                bind.execute(text("CREATE EXTENSION pg_trgm SCHEMA public"))
        except DBAPIError:
            log.warning("no_pg_trgm", table=table, column=column)
            return
        schema = "public"
    op.execute(f"CREATE INDEX {name} ON {table} USING gin ({column} {schema}.gin_trgm_ops)")
