"""What the lint before each signature costs, beside a whole issuance.

Issues certificates on the embedded database as the CA's contract does (CSR read and verified,
drafted, linted, signed by P-256, stored with event and audit record), and prints the time of
one; then the time that judging the very same to-be-signed certificates takes, and the ratio
(the aim is below a tenth); then all of pkilint's linters over one of them. Figures to read and
explain, not a test.

    .venv/bin/python bench/lint.py --certificates 2000
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography import x509
from tests.services.ca.world import ALICE, DEVICE_PROFILE, YEAR, csr, named

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.lint import check_to_be_signed
from lamassu.kernel.x509.lint.extensions import check_extension
from lamassu.kernel.x509.lint.pkix import linter_findings
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database, DatabaseSettings, Dialect, RecordWriter
from lamassu.services.ca.contract import IssueRequest, Validity
from lamassu.services.ca.model import CaRequest, KeyRequest
from lamassu.services.ca.rules.kept_profile import check_profile_kept
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

WARM_UP = 50


def requests(count: int) -> list[IssueRequest]:
    """Devices of one organisation, each with a name and an alternative name of its own."""
    return [
        IssueRequest(
            ca_id="lint-ca",
            csr_der=csr(
                named(f"pump-{number}", organization="Plant", country="ES"),
                extensions=[x509.SubjectAlternativeName([x509.DNSName(f"pump-{number}.plant")])],
            ),
            caller=ALICE,
            profile_id=DEVICE_PROFILE.id,
        )
        for number in range(count)
    ]


@dataclass
class Run:
    """Seconds of each issuance, processor seconds of all threads together, the certificates
    and their issuer's."""

    times: list[float]
    processor: float
    certificates: list[bytes]
    issuer: bytes


async def issued(folder: Path, count: int) -> Run:
    clock = SystemClock()
    database = await Database.open(
        DatabaseSettings(Dialect.SQLITE, path=folder / "lint.db"),
        services=["ca", "kms"],
        writer=RecordWriter(b"k" * 32),
        clock=clock,
    )
    engine = SoftwareEngine.open("software", folder / "keys", b"a passphrase of a benchmark")
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=KmsStorage(database), clock=clock
    )
    ca = CaService(
        storage=CaStorage(database), keys=kms, clock=clock, validation_urls=["http://pki.test:8080"]
    )
    await ca.create_profile(DEVICE_PROFILE, caller=ALICE)
    authority = await ca.create_ca(
        CaRequest(
            id="lint-ca",
            subject=Subject(common_name="Lint CA"),
            key=KeyRequest(algorithm="ECDSA", size=256),
            validity=Validity(duration=10 * YEAR),
            profile_id=DEVICE_PROFILE.id,
        ),
        caller=ALICE,
    )
    times, certificates = [], []
    processor = 0.0
    for number, request in enumerate(requests(count + WARM_UP)):
        if number == WARM_UP:
            processor = time.process_time()
        started = time.perf_counter()
        done = await ca.issue(request)
        times.append(time.perf_counter() - started)
        certificates.append(done.certificate.der)
    processor = time.process_time() - processor
    await kms.close()
    await database.close()
    return Run(times[WARM_UP:], processor, certificates[WARM_UP:], authority.certificate.der)


def each(work: Callable[[bytes], object], items: Sequence[bytes]) -> list[float]:
    """Seconds that each took."""
    times = []
    for item in items:
        started = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - started)
    return times


def shown(label: str, times: Sequence[float]) -> float:
    middle = statistics.median(times) * 1e6
    slowest = sorted(times)[int(0.99 * (len(times) - 1))] * 1e6
    print(f"{label:<42} p50 {middle:9.1f} us   p99 {slowest:9.1f} us")
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--certificates", type=int, default=2000)
    count = parser.parse_args().certificates
    with tempfile.TemporaryDirectory() as folder:
        run = asyncio.run(issued(Path(folder), count))
    signer = certificate_facts(run.issuer).spki
    drafts = [x509.load_der_x509_certificate(one).tbs_certificate_bytes for one in run.certificates]
    # what is a certificate's own was seen for the first time when it was issued
    check_extension.cache_clear()

    def judge(draft: bytes) -> None:
        check_to_be_signed(draft, signer=signer, issuer_path=(run.issuer,))
        check_profile_kept(draft, profile=DEVICE_PROFILE)

    whole = shown("a whole issuance (P-256, SQLite)", run.times)
    processor = run.processor / count * 1e6
    print(f"{'its processor time':<42} avg {processor:9.1f} us")
    cheap = shown("the lint of the same certificates", each(judge, drafts))
    linter_findings(run.certificates[0])  # the import is not the linters' price
    shown("all of pkilint's linters", each(linter_findings, run.certificates[:50]))
    print(
        f"the lint is {cheap / whole:.1%} of an issuance, {cheap / processor:.1%} of its processor"
    )


if __name__ == "__main__":
    main()
