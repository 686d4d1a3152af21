"""How schemas come to be: programmatic alembic, a history and a version table per service."""
