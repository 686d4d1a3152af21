"""A revoked CA is on the list of the CA above, also once it was deleted; `openssl` judges."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract import CertificateStatus, IssueRequest, Validity
from lamassu.services.ca.model import CaRequest, KeyRequest, StatusChange
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from lamassu.services.va.storage import VaStorage
from lamassu.services.va.usecases import VaService
from tests.services.ca.world import ALICE, DEVICE_PROFILE, csr
from tests.support.databases import DatabaseFactory


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["ca", "kms", "va"]


def verify(folder: Path, root: bytes, child: bytes, leaf: bytes, crls: Sequence[bytes]) -> str:
    """What `openssl verify -crl_check_all` says of the chain."""
    for name, content in (("root", root), ("child", child), ("leaf", leaf)):
        (folder / f"{name}.pem").write_bytes(pem_of(content))
    (folder / "crls.pem").write_bytes(b"".join(pem_of(one, "X509 CRL") for one in crls))
    done = subprocess.run(
        [
            *("openssl", "verify", "-crl_check_all", "-CRLfile", "crls.pem"),
            *("-CAfile", "root.pem", "-untrusted", "child.pem", "leaf.pem"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


async def test_the_crl_of_the_ca_above_carries_a_revoked_ca(
    database_factory: DatabaseFactory, database_services: Sequence[str], tmp_path: Path
) -> None:
    clock = SystemClock()
    database = await database_factory(services=database_services, clock=clock)
    engine = SoftwareEngine.open("software", tmp_path / "keys", b"a passphrase for the test")
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=KmsStorage(database), clock=clock
    )
    ca = CaService(storage=CaStorage(database), keys=kms, clock=clock)
    va = VaService(storage=VaStorage(database), authorities=ca, keys=kms, clock=clock)
    ca.revocations = va
    await ca.create_profile(DEVICE_PROFILE, caller=ALICE)
    for name, parent, days in (("root", "", 900), ("child", "root", 600)):
        request = CaRequest(
            id=name,
            subject=Subject(common_name=name),
            key=KeyRequest("ECDSA", 256),
            validity=Validity(duration=timedelta(days=days)),
            parent_id=parent,
            profile_id="device",
        )
        await ca.create_ca(request, caller=ALICE)
    root, child = [(await ca.get_ca(name)).certificate.der for name in ("root", "child")]
    request = IssueRequest(ca_id="child", csr_der=csr("device"), caller=ALICE)
    leaf = (await ca.issue(request)).certificate.der
    lists = [(await va.crl_of_ca(name)).der for name in ("root", "child")]
    assert verify(tmp_path, root, child, leaf, lists).strip() == "leaf.pem: OK"

    await ca.change_ca_status("child", StatusChange(CertificateStatus.REVOKED), caller=ALICE)
    await ca.run_jobs()

    lists = [(await va.crl_of_ca(name)).der for name in ("root", "child")]
    assert "certificate revoked" in verify(tmp_path, root, child, leaf, lists)
    await ca.delete_ca("child", cascade=False, caller=ALICE)
    lists = [(await va.crl_of_ca("root")).der, (await va.crl_of_ca("child")).der]
    assert "certificate revoked" in verify(tmp_path, root, child, leaf, lists)
    await va.close()
