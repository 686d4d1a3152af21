from __future__ import annotations

from collections.abc import Sequence

import pytest

from lamassu.platform.database import Database
from tests.services.devices.world import World


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["devicemanager"]


@pytest.fixture
def world(database: Database) -> World:
    return World.on(database)
