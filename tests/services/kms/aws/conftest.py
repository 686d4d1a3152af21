"""One emulator of AWS for these tests, quiet before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.moto import MotoServer, moto_server, without_aws_files


@pytest.fixture(scope="package", autouse=True)
def host_without_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the machine that runs the tests is read."""
    with without_aws_files(tmp_path_factory.mktemp("aws")):
        yield


@pytest.fixture(scope="package")
def running_moto(host_without_aws: None) -> Iterator[MotoServer]:
    try:
        with moto_server() as server:
            yield server
    except ComponentMissing as missing:
        missing_component(str(missing))


@pytest.fixture
def moto(running_moto: MotoServer) -> Iterator[MotoServer]:
    running_moto.calm()
    yield running_moto
    running_moto.calm()
