"""A platform whose keys are in a Vault that somebody seals: it says so, waits, and works on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.server import free_port, lamassu, serving
from tests.support.vault import transit_stand


@pytest.mark.slow
def test_a_sealed_vault_is_503_with_a_time_and_keeps_nothing_else_from_working(
    tmp_path: Path,
) -> None:
    try:
        opened = transit_stand(tmp_path)
        stand = opened.__enter__()
    except ComponentMissing as missing:
        missing_component(str(missing))
    section, directory = tmp_path / "engines.yml", tmp_path / "var"
    section.write_text(stand.section())
    names = ("--port", "--http-port", "--internal-port")
    ports = [part for name in names for part in (name, str(free_port()))]
    environment = dict(stand.environment)
    wanted = {"algorithm": "ECDSA", "size": 256, "name": "made while sealed"}
    try:
        lamassu(
            "init", "--dir", str(directory), *ports, "--key-type", "ecdsa-p256",
            "--crypto-engines", str(section), **environment,
        )  # fmt: skip
        with serving(directory, environment=environment) as server, server.admin() as admin:
            with stand.gone():
                refused = admin.post("/api/kms/v1/keys", json=wanted)
                deadline = time.monotonic() + 15
                while (ready := admin.get("/health/ready")).status_code != 503:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                read = admin.get("/api/ca/v1/cas")
                live = lamassu(
                    "config", "check", "--dir", str(directory), "--live", check=False, **environment
                )
            made = admin.post("/api/kms/v1/keys", json=wanted)
            keys = admin.get("/api/kms/v1/keys", params={"filter": "name[eq]made while sealed"})
    finally:
        opened.__exit__(None, None, None)

    assert (refused.status_code, refused.json()["code"]) == (503, "engine_sealed")
    assert int(refused.headers["retry-after"]) >= 1
    assert ready.status_code == 503
    assert read.status_code == 200
    assert "vault operator unseal" in live
    assert made.status_code == 201
    assert len(keys.json()["list"]) == 1  # what was refused left nothing
    assert environment["VAULT_SECRET_ID"] not in live + refused.text + ready.text
