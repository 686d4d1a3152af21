"""The page about coming from elsewhere, typed in as it stands, beside what the other systems
leave: a real `openssl ca`, the files and tables of a step-ca and an EJBCA, the original's
databases."""

from __future__ import annotations

import asyncio
import base64
import csv
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)

from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import pem_of
from tests.support.est import make_csr, new_key
from tests.support.howto import shell_blocks, type_in
from tests.support.missing import missing_component
from tests.support.original import ENGINES, Original
from tests.support.pki import Made, make
from tests.support.postgres import PostgresCluster, PostgresMissing
from tests.support.server import Server, configure_engines, copy_installation, serving

pytestmark = pytest.mark.slow
PAGE = "coming-from-elsewhere.md"
SECTIONS = ("## From OpenSSL", "## From step-ca", "## From EJBCA", "## From the original")
PASSPHRASE = b"a long enough passphrase"
NOW = datetime.now(UTC).replace(microsecond=0)

CNF = """
[ca]
default_ca = it
[it]
dir = old-ca
database = $dir/index.txt
new_certs_dir = $dir/newcerts
certificate = $dir/cacert.pem
private_key = $dir/private/cakey.pem
serial = $dir/serial
crlnumber = $dir/crlnumber
default_md = sha256
default_days = 30
default_crl_days = 7
policy = any
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
authorityKeyIdentifier = keyid
[req]
distinguished_name = empty
[empty]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
"""
OPENSSL = """
mkdir -p old-ca/newcerts old-ca/private
: > old-ca/index.txt
echo 1000 > old-ca/serial
echo 2A > old-ca/crlnumber
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass file:pass.txt \
  -out old-ca/private/cakey.pem
openssl req -config openssl.cnf -new -x509 -key old-ca/private/cakey.pem -passin file:pass.txt \
  -subj "/CN=Old OpenSSL CA" -days 3650 -extensions root -out old-ca/cacert.pem
for name in good stolen held; do
  openssl req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout $name.key -subj "/CN=$name" -out $name.csr
  openssl ca -config openssl.cnf -batch -passin file:pass.txt -in $name.csr -out $name.crt
done
openssl ca -config openssl.cnf -passin file:pass.txt -revoke stolen.crt -crl_reason keyCompromise
openssl ca -config openssl.cnf -passin file:pass.txt -revoke held.crt \
  -crl_hold holdInstructionReject
openssl ca -config openssl.cnf -passin file:pass.txt -gencrl -out old.crl
"""


@dataclass
class Moved:
    """What came from where."""

    folder: Path
    said: str
    step_issuing: Made
    step_leaves: tuple[Made, Made]
    ejbca: Made
    ejbca_leaves: tuple[Made, Made, Made]


@pytest.fixture(scope="module")
def moved(
    fresh: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> Moved:
    try:
        cluster = postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))
    folder = tmp_path_factory.mktemp("page")
    copy_installation(fresh, folder / "var")
    (folder / "pass.txt").write_bytes(PASSPHRASE + b"\n")
    openssl_directory(folder)
    issuing, *leaves = step_directory(folder)
    ejbca, *holders = ejbca_files(folder)
    original = Original(cluster, folder / "old-keys")
    asyncio.run(_small(original))
    configure_engines(folder / "var", ENGINES.format(keys=original.keys))
    said = type_in(shell_blocks(PAGE), folder=folder, environment={"ORIGINAL": original.server})
    original.drop()
    return Moved(folder, said, issuing, (leaves[0], leaves[1]), ejbca, (*holders,))  # type: ignore[arg-type]


async def _small(original: Original) -> None:
    await original.create()
    await original.add_profile("devices")
    await original.add_ca("fleet-ca")
    await original.add_dms("plant", enrollment_ca="fleet-ca")


def openssl_directory(folder: Path) -> None:
    (folder / "openssl.cnf").write_text(CNF)
    done = subprocess.run(
        ["sh", "-eu", "-c", OPENSSL], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _ca(name: str, issuer: Made | None = None) -> Made:
    return make(
        name, issuer=issuer, ca=True, not_before=NOW - timedelta(days=9),
        not_after=NOW + timedelta(days=999),
    )  # fmt: skip


def _leaf(name: str, issuer: Made) -> Made:
    return make(
        name, issuer=issuer, not_before=NOW - timedelta(days=5),
        not_after=NOW + timedelta(days=25),
    )  # fmt: skip


def _number(made: Made) -> int:
    return made.certificate.serial_number


def step_directory(folder: Path) -> list[Made]:
    """As `step ca init` leaves it: keys in the old encrypted PEM, absolute paths of its host."""
    root = _ca("Step Root CA")
    issuing = _ca("Step Intermediate CA", root)
    good, bad = _leaf("web-1", issuing), _leaf("web-2", issuing)
    for name in ("certs", "secrets", "config"):
        (folder / "step" / name).mkdir(parents=True)
    (folder / "step/certs/root_ca.crt").write_bytes(pem_of(root.der))
    (folder / "step/certs/intermediate_ca.crt").write_bytes(pem_of(issuing.der))
    (folder / "step/secrets/intermediate_ca_key").write_bytes(
        issuing.key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSPHRASE)
        )
    )
    (folder / "step/config/ca.json").write_text(
        json.dumps(
            {
                "root": "/home/step/certs/root_ca.crt",
                "crt": "/home/step/certs/intermediate_ca.crt",
                "key": "/home/step/secrets/intermediate_ca_key",
                "db": {"type": "badgerv2", "dataSource": "/home/step/db"},
            }
        )
    )
    revoked = {
        "Serial": str(_number(bad)),
        "ProvisionerID": "jwk",
        "ReasonCode": 4,
        "Reason": "",
        "RevokedAt": "2026-01-02T03:04:05.123456789Z",
        "TokenID": "",
        "MTLS": True,
        "ACME": False,
    }
    tables = {
        "x509_certs": [(str(_number(one)).encode(), one.der) for one in (good, bad)],
        "revoked_x509_certs": [(str(_number(bad)).encode(), json.dumps(revoked).encode())],
        "x509_crl": [(b"crl", json.dumps({"Number": 7, "DER": ""}).encode())],
    }
    (folder / "tables").mkdir()
    for table, rows in tables.items():
        lines = (f"{key.hex()}\t{value.hex()}\n".upper() for key, value in rows)
        (folder / "tables" / f"{table}.tsv").write_text("".join(lines))
    return [issuing, good, bad]


def ejbca_files(folder: Path) -> list[Made]:
    ca = _ca("ManagementCA")
    leaves = [_leaf(name, ca) for name in ("alice", "bob", "carol")]
    (folder / "ManagementCA.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"ManagementCA", ca.key, ca.certificate, None, BestAvailableEncryption(PASSPHRASE)
        )
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.name)
        .last_update(NOW - timedelta(days=1))
        .next_update(NOW + timedelta(days=1))
        .add_extension(x509.CRLNumber(19), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(ca.subject_key_id), None, None), False
        )
        .sign(ca.key, SHA256())
    )
    (folder / "ManagementCA.crl").write_bytes(crl.public_bytes(Encoding.DER))
    revoked_at = str(int((NOW - timedelta(days=2)).timestamp() * 1000))
    rows = (
        (leaves[0], "20", "-1", "-1"),
        (leaves[1], "40", "1", revoked_at),
        (leaves[2], "60", "5", revoked_at),
    )
    with (folder / "CertificateData.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["fingerprint", "base64Cert", "status", "revocationReason", "revocationDate",
             "serialNumber", "subjectDN"]
        )  # fmt: skip
        for leaf, status, reason, at in rows:
            text = base64.encodebytes(leaf.der).decode()
            table.writerow(["f", text, status, reason, at, str(_number(leaf)), "CN=x"])
    return [ca, *leaves]


@pytest.fixture(scope="module")
def server(moved: Moved) -> Iterator[Server]:
    with serving(moved.folder / "var", elsewhere=True) as running:
        yield running


def statuses(server: Server, *serial_numbers: str) -> list[tuple[str, str]]:
    with server.admin() as admin:
        found = [admin.get(f"/api/ca/v1/certificates/{one}").json() for one in serial_numbers]
    return [(one["status"], one["revocation_reason"]) for one in found]


def crl_of(server: Server, ca_id: str) -> x509.CertificateRevocationList:
    answer = httpx.get(f"{server.http_url}/ca/{ca_id}.crl", timeout=30)
    assert answer.status_code == 200
    return x509.load_der_x509_crl(answer.content)


def number_of(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serial(made: Made) -> str:
    return certificate_facts(made.der).serial_number


def test_an_openssl_ca_goes_on_here(moved: Moved, server: Server, tmp_path: Path) -> None:
    crl = crl_of(server, "old-openssl-ca")

    assert statuses(server, "1000", "1001", "1002") == [
        ("ACTIVE", "Unspecified"),
        ("REVOKED", "KeyCompromise"),
        ("REVOKED", "CertificateHold"),
    ]
    assert number_of(crl) > 0x2A
    # openssl itself believes the CRL, and refuses the stolen one by it
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    for name, status in (("good", 0), ("stolen", 2)):
        done = subprocess.run(
            ["openssl", "verify", "-crl_check", "-CAfile", str(moved.folder / "old-ca/cacert.pem"),
             "-CRLfile", str(tmp_path / "crl.pem"), str(moved.folder / f"{name}.crt")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr


def test_what_came_with_a_key_issues(server: Server) -> None:
    csr = base64.b64encode(pem_of(make_csr(new_key(), "new-1"), "CERTIFICATE REQUEST")).decode()
    with server.admin() as admin:
        answer = admin.post("/api/ca/v1/cas/old-openssl-ca/certificates/sign", json={"csr": csr})

    assert answer.status_code == 201, answer.text
    assert answer.json()["issuer_metadata"]["id"] == "old-openssl-ca"


def test_a_step_ca_goes_on_here(moved: Moved, server: Server) -> None:
    good, bad = map(serial, moved.step_leaves)

    assert statuses(server, good, bad) == [("ACTIVE", "Unspecified"), ("REVOKED", "Superseded")]
    crl = crl_of(server, "step-intermediate-ca")
    assert number_of(crl) > 7
    entry = crl.get_revoked_certificate_by_serial_number(int(bad, 16))
    assert entry is not None
    assert entry.revocation_date_utc == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with server.admin() as admin:
        issuing = admin.get("/api/ca/v1/cas/step-intermediate-ca").json()
    assert issuing["certificate"]["issuer_metadata"]["id"] == "step-root-ca"


def test_an_ejbca_goes_on_here(moved: Moved, server: Server) -> None:
    assert statuses(server, *map(serial, moved.ejbca_leaves)) == [
        ("ACTIVE", "Unspecified"),
        ("REVOKED", "KeyCompromise"),
        ("REVOKED", "CessationOfOperation"),
    ]
    assert number_of(crl_of(server, "managementca")) > 19
    assert crl_of(server, "managementca").is_signature_valid(moved.ejbca.key.public_key())


def test_a_dry_run_says_so(moved: Moved) -> None:
    assert moved.said.count("nothing was written: this was a dry run") == 3
