from __future__ import annotations

from tests.services.dms.conftest import database_services, dialect, world

__all__ = ["database_services", "dialect", "world"]
