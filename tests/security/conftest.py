"""A real installation, attacked from outside and from its own host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, make_installation, serving


@pytest.fixture(scope="session")
def attacked_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `lamassu init` makes."""
    return make_installation(tmp_path_factory.mktemp("attacked") / "var", key_type="ecdsa-p256")


@pytest.fixture(scope="session")
def platform(attacked_directory: Path) -> Iterator[Server]:
    """The installation, served to all attacks of a run."""
    with serving(attacked_directory) as server:
        yield server
