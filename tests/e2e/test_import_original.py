"""An installation of the original moves here, and its devices do not notice.

Its databases stand in a real PostgreSQL, its keys in the directory of its filesystem engine.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509 import ocsp

from lamassu.kernel.x509.facts import certificate_facts
from tests.support.est import Device, new_key
from tests.support.missing import missing_component
from tests.support.original import ENGINES, Held, Original
from tests.support.pki import make
from tests.support.postgres import PostgresCluster, PostgresMissing
from tests.support.server import Server, configure_engines, copy_installation, lamassu, serving

LAST_CRL = 41


@dataclass
class Fleet:
    """What the original knew: devices and the certificates that they hold."""

    original: Original
    directory: Path
    renewed: tuple[Held, Held]
    revoked: Held
    forged: Held
    report: list[dict[str, Any]]
    trial: Mapping[str, Any]


@pytest.fixture(scope="module")
def fleet(
    fresh: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> Iterator[Fleet]:
    """Moved: judged in a dry run first, then taken over twice."""
    try:
        cluster = postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))
    folder = tmp_path_factory.mktemp("original")
    directory = copy_installation(fresh, folder / "var")
    original = Original(cluster, folder / "old-keys")
    renewed, revoked, forged = asyncio.run(_filled(original))
    configure_engines(directory, ENGINES.format(keys=original.keys))
    trial = _import(original, directory, "--dry-run")
    with_report = folder / "skipped.jsonl"
    _import(original, directory, "--report", str(with_report))
    lines = [json.loads(line) for line in with_report.read_text().splitlines()]
    yield Fleet(original, directory, renewed, revoked, forged, lines, trial)
    original.drop()


async def _filled(original: Original) -> tuple[tuple[Held, Held], Held, Held]:
    await original.create()
    await original.add_profile("devices")
    await original.add_ca("fleet-root", crl_number=3)
    await original.add_ca("fleet-ca", issuer="fleet-root", crl_number=LAST_CRL)
    await original.add_ca("lost-ca", key_file=False)
    await original.add_ca("gone-ca", issuer="fleet-root", status="REVOKED", reason="CACompromise")
    await original.add_key("firmware")
    await original.add_key("lost", key_file=False)
    await original.run(
        "devicemanager",
        "INSERT INTO device_groups (id, name) VALUES (gen_random_uuid(), 'all')",
    )
    await original.add_dms("plant", enrollment_ca="fleet-ca")
    key = new_key()
    first = original.issue("fleet-ca", "pump-1", key=key, status="REVOKED", reason="Superseded")
    second = original.issue("fleet-ca", "pump-1", key=key)
    revoked = original.issue("fleet-ca", "pump-2", status="REVOKED", reason="KeyCompromise")
    retired = original.issue("fleet-ca", "pump-4", status="REVOKED")
    await original.add_certificates(first, second, revoked, retired)
    # what somebody wrote into the database: a certificate that no CA signed, in a slot
    original.cas["twin"] = Held(make("The fleet-ca", ca=True))
    forged = original.issue("twin", "pump-5")
    await original.add_certificates(forged)
    await original.add_device("pump-1", [first, second])
    await original.add_device("pump-2", [revoked], status="REVOKED")
    await original.add_device("pump-3", status="NO_IDENTITY")
    await original.add_device("pump-4", [retired], status="DECOMMISSIONED")
    await original.add_device("pump-5", [forged])
    await original.add_event("ca.create", 7)
    return (first, second), revoked, forged


def _import(original: Original, directory: Path, *options: str) -> Mapping[str, Any]:
    said = lamassu(
        "import", "lamassu", original.server, "--dir", str(directory), "-o", "json", *options
    )
    found: Mapping[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
    return found


@pytest.fixture(scope="module")
def server(fleet: Fleet) -> Any:
    with serving(fleet.directory, elsewhere=True) as running:
        yield running


def reenroll(
    server: Server, folder: Path, held: Held, *, common_name: str, key: Any = None
) -> httpx.Response:
    credential = held.credential(folder, f"{common_name}-{held.serial_number[:8]}")
    device = Device(server, "plant", common_name, folder, bootstrap=credential)
    return device.post("simplereenroll", make_csr_like(held, key or held.made.key), credential)


def make_csr_like(held: Held, key: Any) -> bytes:
    name = held.made.name
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def status_of(server: Server, issuer: Held, held: Held) -> ocsp.OCSPResponse:
    request = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(held.made.certificate, issuer.made.certificate, SHA1())
        .build()
    )
    answer = httpx.post(
        f"{server.http_url}/ocsp", content=request.public_bytes(Encoding.DER), timeout=30
    )
    return ocsp.load_der_ocsp_response(answer.content)


def test_the_report_names_what_was_not_believed(fleet: Fleet) -> None:
    *lines, last = fleet.report
    summary = last["summary"]

    assert summary["counts"]["ca"]["adopted"] == 4
    assert summary["counts"]["key"] == {"adopted": 1, "present": 0, "updated": 0, "skipped": 1}
    # of the CAs' own certificates the rows are there already
    assert summary["counts"]["certificate"] == {
        "adopted": 4, "present": 4, "updated": 0, "skipped": 1,
    }  # fmt: skip
    assert summary["counts"]["device"]["adopted"] == 5
    assert summary["lost_revocations"] == 0
    told = {(line["kind"], line["what"]): line["code"] for line in lines}
    assert told["certificate", fleet.forged.serial_number] == "signature_invalid"
    assert told["device", "pump-5"] == "slot_not_adopted"
    assert told["ca", "lost-ca"] == "key_not_adopted"
    assert told["other", "1 device groups"] == "not_available"


def test_cas_come_as_they_stood(fleet: Fleet, server: Server) -> None:
    with server.admin() as admin:
        found = {one["id"]: one for one in admin.get("/api/ca/v1/cas").json()["list"]}
        keys = admin.get("/api/kms/v1/keys").json()["list"]

    assert found["fleet-ca"]["certificate"]["type"] == "MANAGED"
    assert found["fleet-ca"]["certificate"]["engine_id"] == "filesystem-1"
    assert (found["fleet-ca"]["metadata"], found["fleet-ca"]["level"]) == ({"team": "plant"}, 1)
    lost = found["lost-ca"]["certificate"]
    assert (lost["type"], lost["engine_id"]) == ("IMPORTED_WITHOUT_KEY", "")
    gone = found["gone-ca"]["certificate"]
    assert (gone["status"], gone["revocation_reason"]) == ("REVOKED", "CACompromise")
    named = [(key["name"], key["tags"]) for key in keys if key["name"] == "firmware"]
    assert named == [("firmware", ["t"])]


def test_a_dry_run_judged_all_of_it_alike(fleet: Fleet) -> None:
    assert fleet.trial["counts"] == fleet.report[-1]["summary"]["counts"]
    assert fleet.trial["dry_run"] is True


def test_status_is_told_as_before_and_crl_numbers_go_on(fleet: Fleet, server: Server) -> None:
    issuer = fleet.original.cas["fleet-ca"]
    good = status_of(server, issuer, fleet.renewed[1])
    bad = status_of(server, issuer, fleet.revoked)

    assert good.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert bad.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert bad.revocation_reason is x509.ReasonFlags.key_compromise
    answer = httpx.get(f"{server.http_url}/crl/{issuer.facts.ski}", timeout=30)
    crl = x509.load_der_x509_crl(answer.content)
    assert crl.is_signature_valid(issuer.made.key.public_key())
    # security rule 29: raised, not reused
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > LAST_CRL
    for held in (fleet.revoked, fleet.renewed[0]):
        serial = held.made.certificate.serial_number
        assert crl.get_revoked_certificate_by_serial_number(serial) is not None


def test_a_device_renews_with_the_certificate_that_it_has(
    fleet: Fleet, server: Server, tmp_path: Path
) -> None:
    _, current = fleet.renewed
    with server.admin() as admin:
        before = admin.get("/api/devmanager/v1/devices/pump-1").json()

    answer = reenroll(server, tmp_path, current, common_name="pump-1")

    assert answer.status_code == 200, answer.text
    (issued,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))
    issued.verify_directly_issued_by(fleet.original.cas["fleet-ca"].made.certificate)
    assert issued.subject == current.made.name
    with server.admin() as admin:
        after = admin.get("/api/devmanager/v1/devices/pump-1").json()
    versions = before["identity"]["versions"]
    assert versions == {str(n): one.serial_number for n, one in enumerate(fleet.renewed)}
    serial = certificate_facts(issued.public_bytes(Encoding.DER)).serial_number
    assert after["identity"]["versions"] == {**versions, "2": serial}
    assert (before["dms_owner"], before["metadata"], before["tags"]) == (
        "plant", {"room": "7"}, ["iot"],
    )  # fmt: skip

    # a second run brings nothing back
    again = _import(fleet.original, fleet.directory)
    assert again["counts"]["device"] == {"adopted": 0, "present": 5, "updated": 0, "skipped": 0}
    with server.admin() as admin:
        assert (
            admin.get("/api/devmanager/v1/devices/pump-1").json()["identity"] == after["identity"]
        )
        counted = admin.get("/api/alerts/v1/events/latest").json()
    (created,) = [one for one in counted if one["event_types"] == "ca.create"]
    assert created["counter"] < 7 + 20


@pytest.mark.parametrize("which", ["superseded", "revoked", "forged"])
def test_whoever_was_let_go_stays_so(
    fleet: Fleet, server: Server, tmp_path: Path, which: str
) -> None:
    held = {
        "superseded": fleet.renewed[0], "revoked": fleet.revoked, "forged": fleet.forged,
    }[which]  # fmt: skip

    answer = reenroll(server, tmp_path, held, common_name=held.facts.subject.common_name)

    assert answer.status_code in (401, 403), answer.text


def test_a_device_without_identity_waits_as_it_did(fleet: Fleet, server: Server) -> None:
    with server.admin() as admin:
        waiting = admin.get("/api/devmanager/v1/devices/pump-3").json()
        retired = admin.get("/api/devmanager/v1/devices/pump-4").json()
        forged = admin.get("/api/devmanager/v1/devices/pump-5").json()

    assert (waiting["status"], "identity" in waiting) == ("NO_IDENTITY", False)
    assert retired["status"] == "DECOMMISSIONED"
    assert (forged["status"], "identity" in forged) == ("NO_IDENTITY", False)
