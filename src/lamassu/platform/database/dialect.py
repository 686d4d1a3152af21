"""The two databases that the platform runs on."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """Spelt as SQLAlchemy spells them."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
