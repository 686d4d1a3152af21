"""Run by alembic for one service at a time; connection and service come in as attributes."""

from __future__ import annotations

from alembic import context

_given = context.config.attributes
context.configure(
    connection=_given["connection"],
    version_table=f"{_given['service']}_alembic",
    # the caller holds the transaction that all of a service's revisions run in
    transactional_ddl=False,
)
context.run_migrations()
