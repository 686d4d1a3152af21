"""The page about the software engine, typed in as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.usecases.private_keys import spki_of
from tests.support.howto import shell_blocks, type_in
from tests.support.server import free_port, serving

PAGE = "engine-software.md"
SERVED = "With `lamassu serve --dir var` running:"


@pytest.mark.slow
def test_a_reader_takes_over_a_directory_and_brings_a_key(tmp_path: Path) -> None:
    old = ec.generate_private_key(ec.SECP256R1())
    brought = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "old-keys").mkdir()
    (tmp_path / "old-keys" / "plant-7").write_bytes(
        old.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (tmp_path / "firmware.pem").write_bytes(
        brought.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    ports = f"--port {free_port()} --http-port {free_port()} --internal-port {free_port()}"

    said = type_in(shell_blocks(PAGE, before=SERVED), folder=tmp_path, environment={"PORTS": ports})

    old_id = key_id_of(spki_of(old))
    assert "adopted" in said
    assert said.rstrip().endswith(f"{old_id}.key\nkeystore.json")
    with serving(tmp_path / "var") as server:
        said = type_in(shell_blocks(PAGE, after=SERVED), folder=tmp_path)
        assert "imported" in said
        with server.admin() as admin:
            adopted = admin.get("/api/kms/v1/keys/plant-7").json()
    assert (adopted["key_id"], adopted["engine_id"]) == (old_id, "old")
