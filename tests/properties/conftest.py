"""The assembled platform, opened once for all properties."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.properties.assembled import Assembled


@pytest.fixture(scope="session")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assembled]:
    """Its state grows with every request that is taken: no test counts on what is there."""
    platform = Assembled(tmp_path_factory.mktemp("assembled"))
    yield platform
    platform.close()
