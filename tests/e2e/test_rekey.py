"""A CA gets a new key, and no relying party breaks: `openssl` judges every combination."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.e2e.test_key_move import SECOND
from tests.support.est import Device, bootstrap, make_dms
from tests.support.server import Server, configure_engines, copy_installation, lamassu, serving

PEM = Encoding.PEM


@pytest.fixture
def server(fresh: Path, tmp_path: Path) -> Iterator[Server]:
    """An installation with a second engine, `safe`, served."""
    directory = copy_installation(fresh, tmp_path / "var")
    configure_engines(directory, SECOND)
    with serving(directory, elsewhere=True) as running:
        yield running


def run(server: Server, *arguments: str, check: bool = True) -> str:
    return lamassu(*arguments, "--dir", str(server.directory), "--url", server.url, check=check)


def get(server: Server, path: str) -> Any:
    with server.admin() as admin:
        answer = admin.get(f"/api{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def certificate_of(server: Server, ca_id: str) -> x509.Certificate:
    text = get(server, f"/ca/v1/cas/{ca_id}")["certificate"]["certificate"]
    return x509.load_pem_x509_certificate(base64.b64decode(text))


def cross_certificates(server: Server, old: str, new: str) -> dict[str, x509.Certificate]:
    """`new with old` and `old with new`, found among what each generation issued."""
    found = {}
    keys = {ca: certificate_of(server, ca).public_key() for ca in (old, new)}
    for name, issuer, subject in (("new with old", old, new), ("old with new", new, old)):
        for row in get(server, f"/ca/v1/cas/{issuer}/certificates?page_size=100")["list"]:
            one = x509.load_pem_x509_certificate(base64.b64decode(row["certificate"]))
            # a root lists its own certificate too
            if one.public_key() == keys[subject] and one != certificate_of(server, subject):
                found[name] = one
    return found


def crl(server: Server, certificate: x509.Certificate) -> x509.CertificateRevocationList:
    """The CRL of a generation, by its subject key identifier."""
    ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    answer = httpx.get(f"{server.http_url}/crl/{ski.hex()}")
    assert answer.status_code == 200, answer.text
    return x509.load_der_x509_crl(answer.content)


def verifies(
    folder: Path,
    leaf: x509.Certificate,
    *,
    anchor: x509.Certificate,
    untrusted: list[x509.Certificate],
    crls: list[x509.CertificateRevocationList],
) -> bool:
    """What `openssl verify` says, with this one anchor; below a root each CRL is asked.

    (Of an anchor that is no root openssl would want the CRL above it, whose issuer is not there.)
    """
    (folder / "anchor.pem").write_bytes(anchor.public_bytes(PEM))
    (folder / "untrusted.pem").write_bytes(b"".join(one.public_bytes(PEM) for one in untrusted))
    (folder / "crls.pem").write_bytes(b"".join(one.public_bytes(PEM) for one in crls))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(PEM))
    command = ["openssl", "verify", "-x509_strict", "-partial_chain"]
    command += ["-crl_check_all" if anchor.subject == anchor.issuer else "-crl_check"]
    command += ["-CAfile", "anchor.pem", "-untrusted", "untrusted.pem", "-CRLfile", "crls.pem"]
    done = subprocess.run(
        [*command, "leaf.pem"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def ocsp(server: Server, folder: Path, leaf: x509.Certificate, issuer: x509.Certificate) -> str:
    """`good` or `revoked`, as `openssl ocsp` has it from the responder."""
    (folder / "issuer.pem").write_bytes(issuer.public_bytes(PEM))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(PEM))
    command = ["openssl", "ocsp", "-issuer", "issuer.pem", "-cert", "leaf.pem", "-no_nonce"]
    command += ["-url", f"{server.http_url}/ocsp", "-CAfile", "issuer.pem", "-partial_chain"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Response verify OK" in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout.split("leaf.pem: ")[1].split()[0]


def enrolled(server: Server, folder: Path, name: str) -> Device:
    device = Device(server, "lines", name, folder, bootstrap(server, folder, name))
    assert device.enroll().status_code == 200
    return device


def test_an_issuing_ca_goes_on_under_a_new_key_in_another_engine(
    server: Server, tmp_path: Path
) -> None:
    make_dms(server, "lines")
    early = enrolled(server, tmp_path, "early")
    assert early.identity is not None
    before = early.identity.certificate

    planned = run(server, "ca", "rekey", "manufacturing-ca", "--engine", "safe", "--dry-run")
    assert "manufacturing-ca.2" in planned
    assert "successor_id" not in get(server, "/ca/v1/cas/manufacturing-ca")
    run(server, "ca", "rekey", "manufacturing-ca", "--engine", "safe")

    made = get(server, "/ca/v1/cas/manufacturing-ca.2")
    assert made["certificate"]["engine_id"] == "safe"
    assert made["generation_of"] == "manufacturing-ca"
    assert get(server, "/ca/v1/cas/manufacturing-ca")["successor_id"] == "manufacturing-ca.2"
    old, new = (certificate_of(server, ca) for ca in ("manufacturing-ca", "manufacturing-ca.2"))
    assert old.subject == new.subject
    across = list(cross_certificates(server, "manufacturing-ca", "manufacturing-ca.2").values())
    assert len(across) == 2

    # whatever names the CA issues under the new key: a new device, and the old one's renewal
    late = enrolled(server, tmp_path, "late")
    assert late.identity is not None
    after = late.identity.certificate
    after.verify_directly_issued_by(new)
    before.verify_directly_issued_by(old)
    deadline = time.monotonic() + 15  # enrolment remembers CAs for a few seconds
    while late.reenroll().status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert early.reenroll().status_code == 200
    early.identity.certificate.verify_directly_issued_by(new)

    root = certificate_of(server, "root-ca")
    between = certificate_of(server, "intermediate-ca")
    crls = [crl(server, one) for one in (root, between, old, new)]
    for leaf in (before, after):
        for anchor in (old, new):
            assert verifies(tmp_path, leaf, anchor=anchor, untrusted=across, crls=crls)
        chain = [between, old, new]
        assert verifies(tmp_path, leaf, anchor=root, untrusted=chain, crls=crls)
    assert not verifies(tmp_path, after, anchor=old, untrusted=[], crls=crls)

    answer = httpx.get(f"{server.url}/.well-known/est/lines/cacerts", verify=False, timeout=10)
    told = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))
    assert {old, new, *across, root, between} <= set(told)

    # a certificate of the old key is revoked by the old key's CRL and OCSP answers
    assert ocsp(server, tmp_path, before, old) == "good"
    serial = get(server, f"/ca/v1/certificates/{before.serial_number:x}")["serial_number"]
    run(server, "cert", "revoke", serial, "--reason", "KeyCompromise")
    assert ocsp(server, tmp_path, before, old) == "revoked"
    assert ocsp(server, tmp_path, late.received[0], new) in ("good", "revoked")
    listed = crl(server, old).get_revoked_certificate_by_serial_number(before.serial_number)
    assert listed is not None
    none = crl(server, new).get_revoked_certificate_by_serial_number(before.serial_number)
    assert none is None


def test_a_root_is_followed_by_a_root_and_each_vouches_for_the_other(
    server: Server, tmp_path: Path
) -> None:
    make_dms(server, "lines")
    early = enrolled(server, tmp_path, "early")
    assert early.identity is not None
    leaf = early.identity.certificate

    run(server, "ca", "rekey", "root-ca", "--engine", "safe", "--key-type", "ecdsa-p384")

    old, new = certificate_of(server, "root-ca"), certificate_of(server, "root-ca.2")
    new.verify_directly_issued_by(new)
    across = cross_certificates(server, "root-ca", "root-ca.2")
    between, issuing = (
        certificate_of(server, ca) for ca in ("intermediate-ca", "manufacturing-ca")
    )
    crls = [crl(server, one) for one in (old, new, between, issuing)]
    chain = [issuing, between, across["old with new"]]
    assert verifies(tmp_path, leaf, anchor=new, untrusted=chain, crls=crls)
    assert verifies(tmp_path, leaf, anchor=old, untrusted=[issuing, between], crls=crls)

    # a CA made under the root comes from the new key
    run(
        server, "ca", "create", "plant-9", "--cn", "Plant 9", "--parent", "root-ca",
        "--profile", "device-profile", "--own-profile", "intermediate-ca-profile",
    )  # fmt: skip
    plant = certificate_of(server, "plant-9")
    plant.verify_directly_issued_by(new)
    crls.append(crl(server, plant))
    assert verifies(tmp_path, plant, anchor=old, untrusted=[across["new with old"]], crls=crls)


def test_a_third_generation_follows_the_second_and_what_cannot_be_is_refused(
    server: Server,
) -> None:
    run(server, "ca", "rekey", "development-ca", "--engine", "safe")
    run(server, "ca", "rekey", "development-ca")
    line = [get(server, f"/ca/v1/cas/development-ca{end}") for end in ("", ".2", ".3")]
    assert [ca.get("successor_id") for ca in line] == [
        "development-ca.2",
        "development-ca.3",
        None,
    ]
    with server.admin() as admin:

        def refused(ca_id: str, body: object) -> tuple[int, str]:
            answer = admin.post(f"/api/ca/v1/cas/{ca_id}/rekey", json=body)
            return answer.status_code, answer.json()["code"]

        assert refused("nowhere", {})[0] == 404
        assert refused("root-ca", {"engine_id": "nowhere"}) == (400, "engine_unknown")
        assert refused("root-ca", {"key_metadata": {"type": "RSA"}}) == (400, "missing_field")
        assert refused("root-ca", {"key_metadata": {"type": "Ed25519", "bits": 256}}) == (
            400,
            "key_not_supported",
        )
        said = run(server, "ca", "revoke", "development-ca.2", "--reason", "Superseded", "--yes")
        assert "development-ca.3, its next generation, goes on" in said
        run(server, "ca", "revoke", "development-ca.3", "--reason", "CACompromise", "--yes")
        assert refused("development-ca", {})[0] == 400
    keys = [row["name"] for row in get(server, "/kms/v1/keys?page_size=100")["list"]]
    assert keys.count("ca/root-ca.2") == 0
