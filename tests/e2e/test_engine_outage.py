"""An engine is gone while the platform runs: who asks is told so, and all else goes on."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.engines import ComponentMissing
from tests.support.est import Device, bootstrap, make_dms
from tests.support.missing import missing_component
from tests.support.server import Server, configure_engines, copy_installation, lamassu, serving
from tests.support.softhsm import SoftHsm, Token

BESIDE = "crypto_engines:\n  default_id: software\n  software:\n    - id: software\n"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    try:
        return SoftHsm(tmp_path_factory.mktemp("softhsm")).token("outage")
    except ComponentMissing as missing:
        missing_component(str(missing))


@pytest.fixture(scope="module")
def server(fresh: Path, token: Token, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An installation with engines `software`, the default, and `hsm`, served."""
    directory = copy_installation(fresh, tmp_path_factory.mktemp("outage") / "var")
    configure_engines(directory, token.section().replace("crypto_engines:\n", BESIDE))
    with serving(directory, elsewhere=True, environment={"HSM_PIN": token.pin}) as running:
        yield running


def ready(server: Server, who: Callable[[], httpx.Client]) -> httpx.Response:
    with who() as client:
        return client.get("/health/ready")


def sign(server: Server, key: str) -> httpx.Response:
    body = {
        "algorithm": "ECDSA_SHA_256",
        "message": base64.b64encode(b"m").decode(),
        "message_type": "raw",
    }
    with server.admin() as admin:
        return admin.post(f"/api/kms/v1/keys/{key}/sign", json=body)


def figures(server: Server) -> str:
    with server.admin() as admin:
        answer = admin.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def test_a_lesser_engine_that_is_gone_is_told_and_stops_nothing_else(
    server: Server, token: Token, tmp_path: Path
) -> None:
    run = ("--dir", str(server.directory), "--url", server.url)
    pin = {"HSM_PIN": token.pin}
    lamassu("key", "create", "Kept safe", "--alias", "kept", "--engine", "hsm", *run, **pin)
    lamassu("key", "move", _key_of(server, "development-ca"), "--engine", "hsm", *run, **pin)
    make_dms(server, "goes-on")
    make_dms(server, "stands-still", enrollment_ca="development-ca")
    devices = {
        dms: Device(server, dms, f"d-{dms}", tmp_path, bootstrap(server, tmp_path, f"d-{dms}"))
        for dms in ("goes-on", "stands-still")
    }
    assert sign(server, "kept").status_code == 200

    with token.hsm.gone():
        deadline = time.monotonic() + 30
        while "reasons" not in (told := ready(server, server.admin)).json():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert (told.status_code, told.json()["status"]) == (200, "ready")
        assert told.json()["reasons"]["engine hsm"]
        assert ready(server, server.client).json() == {"status": "ready"}
        assert 'lamassu_crypto_engine_up{engine="hsm"} 0.0' in figures(server)
        assert 'lamassu_crypto_engine_up{engine="software"} 1.0' in figures(server)

        refused = sign(server, "kept")
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) >= 1
        held = devices["stands-still"].enroll()
        assert held.status_code == 503, held.text
        assert int(held.headers["retry-after"]) >= 1
        started = time.monotonic()
        assert devices["goes-on"].enroll().status_code == 200
        assert time.monotonic() - started < 5

    deadline = time.monotonic() + 30
    while "reasons" in ready(server, server.admin).json():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert sign(server, "kept").status_code == 200
    assert devices["stands-still"].enroll().status_code == 200
    text = figures(server)
    assert 'lamassu_crypto_engine_up{engine="hsm"} 1.0' in text
    assert 'operation_seconds_count{engine="hsm",operation="sign"}' in text


def test_figures_are_for_principals_with_the_right(server: Server) -> None:
    with server.client() as stranger:
        assert stranger.get("/metrics").status_code == 401


def _key_of(server: Server, ca_id: str) -> str:
    with server.admin() as admin:
        found = admin.get(f"/api/ca/v1/cas/{ca_id}").json()
    return str(found["certificate"]["subject_key_id"])
