from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamassu.services.kms.engines.software import SoftwareEngine

from .room import Room


@pytest.fixture(scope="session")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> SoftwareEngine:
    """Opened once: the key derivation is slow by design."""
    return SoftwareEngine.open(
        "token", tmp_path_factory.mktemp("token") / "keys", b"a passphrase that is long enough"
    )


@pytest.fixture
def room(tmp_path: Path, keystore: SoftwareEngine) -> Iterator[Room]:
    """With an empty token."""
    room = Room(tmp_path / "ceremony", keystore)
    yield room
    for key_id in room.keys:
        keystore.delete(key_id)
