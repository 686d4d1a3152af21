"""`docs/how-to/key-backup.md`, as a reader types it: a token is lost, and its CA issues again."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.engines import ComponentMissing
from tests.support.howto import shell_blocks, type_in
from tests.support.missing import missing_component
from tests.support.server import free_port, serving
from tests.support.softhsm import find_module

PAGE = "key-backup.md"
SERVE = "Now `lamassu serve --dir var`, and the CA issues again:"
CAS = 6


@pytest.mark.slow
def test_a_ca_goes_on_in_the_spare_token(tmp_path: Path) -> None:
    try:
        find_module()
    except ComponentMissing as missing:
        missing_component(str(missing))
    names = ("--port", "--http-port", "--internal-port")
    environment = {
        "PORTS": " ".join(f"{name} {free_port()}" for name in names),
        "HSM_PIN": "1234",
        "HSM_SO_PIN": "87654321",
        "SPARE_PIN": "5678",
        "SPARE_SO_PIN": "12345678",
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
    }

    said = type_in(shell_blocks(PAGE, before=SERVE), folder=tmp_path, environment=environment)

    values = re.findall(r"has the backup key with check value (\w+)", said)
    assert len(values) == 2
    assert values[0] == values[1]
    for engine_id, times in (("production-hsm", 2), ("spare-hsm", 1)):  # the spare's, at the end
        assert said.count(f"the keys of engine {engine_id} were never backed up") == times
        assert said.count(f"the backup of engine {engine_id} was never rehearsed") == times
    assert said.count("restored, signed, removed") == said.count("signs in spare-hsm") >= CAS
    assert (tmp_path / "2030-01.backup").stat().st_mode & 0o777 == 0o600
    directory = tmp_path / "var"
    with serving(directory, environment=environment) as server, server.admin() as admin:
        authorities = admin.get("/api/ca/v1/cas").json()["list"]
        issuer = next(one for one in authorities if one["id"] == "manufacturing-ca")
        pem = base64.b64decode(issuer["certificate"]["certificate"])
        (tmp_path / "manufacturing-ca.crt").write_bytes(pem)

        said = type_in(
            shell_blocks(PAGE, after=SERVE),
            folder=tmp_path,
            environment={**environment, "LAMASSU_URL": server.url},
        )

        assert "device.crt: OK" in said
        assert {one["certificate"]["engine_id"] for one in authorities} == {"spare-hsm"}
    issued = x509.load_pem_x509_certificate((tmp_path / "device.crt").read_bytes())
    assert issued.issuer == x509.load_pem_x509_certificate(pem).subject
    pins = {name: environment[name] for name in ("HSM_PIN", "SPARE_PIN", "SOFTHSM2_CONF")}
    type_in(["lamassu audit verify --dir var"], folder=tmp_path, environment=pins)
