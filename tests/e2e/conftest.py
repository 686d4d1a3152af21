"""A real installation per test file, served by a real process over real TLS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.footprint import Watched
from tests.support.missing import missing_component
from tests.support.postgres import PostgresCluster, PostgresMissing
from tests.support.server import Server, copy_installation, make_installation, serving
from tests.support.tables import Tables


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `lamassu init` makes, with the embedded database; to be copied, never served."""
    return make_installation(tmp_path_factory.mktemp("fresh") / "var", key_type="ecdsa-p256")


@pytest.fixture(scope="module")
def installation(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh installation for a test file."""
    return copy_installation(fresh, tmp_path_factory.mktemp("e2e") / "var")


@pytest.fixture(scope="module")
def platform(installation: Path) -> Iterator[Server]:
    """The installation, served."""
    # the ports of the configuration may be somebody's by now: it is a copy of an older one
    with serving(installation, elsewhere=True) as server:
        yield server


@pytest.fixture(scope="module")
def watched(platform: Server) -> Watched:
    """What the served installation stores."""
    return Watched(platform.directory, Tables.of(platform.directory, platform.database))


@pytest.fixture(scope="module")
def postgresql_url(
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> Iterator[str]:
    """The URL of an empty PostgreSQL database for a whole test file."""
    try:
        cluster = postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))
    name = f"e2e_{os.urandom(4).hex()}"
    cluster.sql(f'CREATE DATABASE "{name}"')
    yield cluster.url(name)
    cluster.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
