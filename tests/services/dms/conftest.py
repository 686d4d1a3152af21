from __future__ import annotations

from collections.abc import Sequence

import pytest

from lamassu.platform.database import Database, Dialect
from tests.services.dms.world import World


@pytest.fixture
def dialect() -> Dialect:
    """Behaviour is shown on one database; `test_storage.py` compares the two."""
    return Dialect.SQLITE


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["dmsmanager", "devicemanager"]


@pytest.fixture
def world(database: Database) -> World:
    return World.on(database)
