"""What the import commands send, and what they refuse before they send anything."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from lamassu.kernel.x509.pem import pem_of
from tests.support.pki import Made, make

from .test_client_commands import Platform, lamassu, platform

__all__ = ["platform"]

CA = {
    "id": "plant-7",
    "level": 0,
    "certificate": {"type": "IMPORTED_WITH_KEY", "subject": {"common_name": "Plant 7"}},
}
CERTIFICATE = {"serial_number": "0b", "subject": {"common_name": "x"}, "status": "ACTIVE"}


@pytest.fixture(scope="module")
def made() -> Made:
    return make("Plant 7", ca=True)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_ca_is_sent_with_its_key(platform: Platform, made: Made, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(pem_of(made.der))
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.key").write_bytes(key)
    platform.on("POST", "/api/ca/v1/cas/import", CA, 201)

    done = lamassu(
        "ca", "import", str(tmp_path / "ca.pem"), "--key", str(tmp_path / "ca.key"),
        "--id", "plant-7", "--profile", "device-profile",
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert platform.body == {
        "id": "plant-7",
        "profile_id": "device-profile",
        "ca": b64(made.der),
        "private_key": b64(key),
    }
    assert "IMPORTED_WITH_KEY" in done.stdout


def test_a_pkcs12_file_is_sent_with_its_password(
    platform: Platform, made: Made, tmp_path: Path
) -> None:
    content = pkcs12.serialize_key_and_certificates(
        b"x", made.key, made.certificate, None, BestAvailableEncryption(b"open sesame")
    )
    (tmp_path / "ca.p12").write_bytes(content)
    (tmp_path / "password").write_text("open sesame\nsecond line\n")
    platform.on("POST", "/api/ca/v1/cas/import", CA, 201)

    done = lamassu(
        "ca", "import", "--pkcs12", str(tmp_path / "ca.p12"),
        "--password-file", str(tmp_path / "password"),
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert platform.body == {"pkcs12": b64(content), "password": "open sesame"}
    assert "open sesame" not in done.output


def test_each_certificate_of_each_file_is_a_ca(
    platform: Platform, made: Made, tmp_path: Path
) -> None:
    other = make("Other", ca=True)
    (tmp_path / "two.pem").write_bytes(pem_of(made.der) + pem_of(other.der))
    (tmp_path / "one.der").write_bytes(made.der)
    platform.on("POST", "/api/ca/v1/cas/import", CA, 201)

    done = lamassu("ca", "import", str(tmp_path / "two.pem"), str(tmp_path / "one.der"))

    assert done.exit_code == 0, done.output
    assert len(platform.requests) == 3


def test_what_was_imported_before_a_refusal_is_told(
    platform: Platform, made: Made, tmp_path: Path
) -> None:
    (tmp_path / "two.pem").write_bytes(pem_of(made.der) * 2)
    answers: list[Any] = [(201, CA), (409, {"err": "CA already exists", "code": "ca_exists"})]

    def one_after_another(request: Any) -> Any:
        import httpx

        status, document = answers.pop(0)
        return httpx.Response(status, json=document)

    platform.answers["POST", "/api/ca/v1/cas/import"] = one_after_another

    done = lamassu("ca", "import", str(tmp_path / "two.pem"))

    assert done.exit_code == 1
    assert "plant-7" in done.stdout
    assert "CA already exists" in done.stderr
    assert "1 of 2 CAs were imported" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a CA's certificate"),
        (["two.pem", "--id", "x"], "import them one by one"),
        (["two.pem", "--key", "two.pem"], "--key is the key of one CA"),
        (["two.pem", "--pkcs12", "two.pem"], "leave the others out"),
        (["two.pem", "--password-file", "two.pem"], "is for --pkcs12"),
        (["none.pem"], "cannot be read"),
        (["empty.pem"], "no PEM block"),
    ],
)
def test_a_wrong_command_sends_nothing(
    platform: Platform,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.pem").write_bytes(pem_of(made.der) * 2)
    Path("empty.pem").write_text("-----BEGIN NOTHING-----\n")

    done = lamassu("ca", "import", *arguments)

    assert done.exit_code == 1
    assert told in done.stderr
    assert platform.requests == []


def test_certificates_are_imported_with_metadata(
    platform: Platform, made: Made, tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_bytes(pem_of(made.der))
    platform.on("POST", "/api/ca/v1/certificates/import", CERTIFICATE, 201)

    done = lamassu("cert", "import", str(tmp_path / "x.pem"), "--metadata", '{"site": "Ulm"}')

    assert done.exit_code == 0, done.output
    assert platform.body == {"certificate": b64(made.der), "metadata": {"site": "Ulm"}}
    assert lamassu("cert", "import", str(tmp_path / "x.pem"), "--metadata", "[]").exit_code == 1


def test_a_certificate_is_made_with_a_new_key_or_one_that_is_here(platform: Platform) -> None:
    platform.on("POST", "/api/ca/v1/certificates", CERTIFICATE, 201)

    assert lamassu("cert", "create", "--ca", "plant-7", "--cn", "signer-1").exit_code == 0
    assert platform.body == {
        "ca_id": "plant-7",
        "key_spec": {"type": "ECDSA", "bits": 256, "engine_id": ""},
        "subject": {"common_name": "signer-1"},
    }
    lamassu("cert", "create", "--ca", "plant-7", "--cn", "signer-1", "--key", "firmware")
    assert platform.body["key_spec"] == {"key_identifier": "firmware"}
    both = lamassu("cert", "create", "--ca", "a", "--cn", "b", "--key", "c", "--engine", "d")
    assert both.exit_code == 1
    assert len(platform.requests) == 2
