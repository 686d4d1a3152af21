"""The page about imported CAs, typed in as it stands, with openssl as the judge."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.howto import shell_blocks, type_in
from tests.support.judges import lint_crl, openssl_crl
from tests.support.server import make_installation, serving

PAGE = "import-ca.md"


@pytest.mark.slow
def test_a_reader_imports_a_ca_which_issues_and_revokes_as_any_other(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "var", key_type="ecdsa-p256")

    with serving(directory) as server:
        said = type_in(shell_blocks(PAGE), folder=tmp_path)
        crl = httpx.get(f"{server.http_url}/ca/plant-7.crl").content

    assert "IMPORTED_WITH_KEY" in said
    assert "signer-1.crt: OK" in said
    assert "gateway-1.crt: OK" in said
    assert said.count("Response verify OK") == 2
    assert "signer-1.crt: good" in said
    assert said.index("gateway-1.crt: good") < said.index("gateway-1.crt: revoked")
    assert "keyCompromise" in said
    plant = x509.load_pem_x509_certificate((tmp_path / "plant.crt").read_bytes())
    gateway = x509.load_pem_x509_certificate((tmp_path / "gateway-1.crt").read_bytes())
    accepted, text = openssl_crl(crl, issuer=plant.public_bytes(Encoding.DER))
    assert accepted, text
    assert lint_crl(crl) == []
    listed = x509.load_der_x509_crl(crl)
    assert listed.get_revoked_certificate_by_serial_number(gateway.serial_number) is not None
