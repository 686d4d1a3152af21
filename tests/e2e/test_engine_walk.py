"""Every crypto engine carries real CAs through a device's whole life, as the demo shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.engines import KINDS, ComponentMissing
from tests.support.missing import missing_component
from tests.support.server import free_port, lamassu, serving


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_an_installation_whose_keys_live_in_the_engine_walks(kind: str, tmp_path: Path) -> None:
    component = tmp_path / "component"
    component.mkdir()
    try:
        opened = KINDS[kind](component)
        stand = opened.__enter__()
    except ComponentMissing as missing:
        missing_component(str(missing))
    try:
        section = tmp_path / "engines.yml"
        section.write_text(stand.section())
        directory = tmp_path / "var"
        names = ("--port", "--http-port", "--internal-port")
        ports = [part for name in names for part in (name, str(free_port()))]
        where = ("--dir", str(directory))
        environment = dict(stand.environment)

        lamassu(
            "init", *where, *ports, "--key-type", "ecdsa-p256", "--crypto-engines", str(section),
            **environment,
        )  # fmt: skip
        walked = lamassu("demo", *where, "--exit", *ports, **environment)

        assert "device.crt: OK" in walked
        assert "device.crt: good" in walked
        assert "device.crt: revoked" in walked
        assert "certificate_revoked" in walked
        [engines] = yaml.safe_load(stand.section())["crypto_engines"].values()
        with serving(directory, environment=environment) as server, server.admin() as admin:
            authorities = admin.get("/api/ca/v1/cas").json()["list"]
            assert len(authorities) == 6
            held = {authority["certificate"]["engine_id"] for authority in authorities}
        assert held == {engines[0]["id"]}
    finally:
        opened.__exit__(None, None, None)
