"""A room for a ceremony: a software token, a directory, a clock in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from lamassu.kernel.x509.names import Subject, name_of
from lamassu.services.ceremony.contract import Answers, Person, RequestWish, RootWish, Signed
from lamassu.services.ceremony.storage import DirectoryLedger
from lamassu.services.ceremony.usecases import Ceremony
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.wiring.ceremony import TokenKeys

NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
PEOPLE = (Person("key custodian", "Ada"), Person("witness", "Charles"))
ROOT = RootWish(
    Subject(common_name="Acme Root CA", organization="Acme"),
    KeySpec(KeyAlgorithm.ECDSA, 256),
    path_length=2,
)
BASE = "http://pki.example:8080"
HOURS = timedelta(hours=1)


def request(
    common_name: str,
    *,
    key: Any = None,
    path_length: int | None = None,
    addresses: bool = True,
    url: str = BASE,
) -> bytes:
    """A CSR (PEM) such as the platform makes for a CA or a responder."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        name_of(Subject(common_name=common_name))
    )
    if path_length is not None:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
    if addresses:
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(f"{url}/ca/root-ca.crl")], None, None, None
        )
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(f"{url}/ocsp")
        )
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), False)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def ca_wish(csr: bytes, **more: Any) -> RequestWish:
    return replace(RequestWish(Signed.CA, csr, 43800 * HOURS), **more)


def responder_wish(csr: bytes, **more: Any) -> RequestWish:
    return replace(RequestWish(Signed.RESPONDER, csr, 8760 * HOURS), **more)


@dataclass
class MovedClock:
    time: datetime = NOW

    def now(self) -> datetime:
        return self.time


@dataclass
class Room:
    """What a test works with."""

    directory: Path
    engine: SoftwareEngine
    clock: MovedClock = field(default_factory=MovedClock)
    said: list[str] = field(default_factory=list)

    def answers(self, **more: Any) -> Answers:
        """A first session's, unless told otherwise."""
        return replace(Answers(date=self.clock.now().date(), people=PEOPLE, root=ROOT), **more)

    def later(self, **more: Any) -> Answers:
        """A session of a ceremony that has its root."""
        return self.answers(**{"root": None, **more})

    def opened(self, wrap: Callable[[Any], Any] = lambda ledger: ledger) -> tuple[Ceremony, Any]:
        ledger = DirectoryLedger(self.directory)
        try:
            ceremony = Ceremony(
                ledger=wrap(ledger),
                keys=TokenKeys(self.engine),
                clock=self.clock,
            )
        except BaseException:
            ledger.close()
            raise
        return ceremony, ledger

    def hold(
        self, answers: Answers | None = None, wrap: Callable[[Any], Any] = lambda ledger: ledger
    ) -> Ceremony:
        """Run a session, or the rest of one that was cut off, as the command line does."""
        ceremony, ledger = self.opened(wrap)
        try:
            asyncio.run(self._hold(ceremony, answers or self.answers()))
        finally:
            ledger.close()
        return ceremony

    async def _hold(self, ceremony: Ceremony, answers: Answers) -> None:
        session = ceremony.session
        if session is not None and session.plan is not None:
            ceremony.resume(answers.people, answers.date)
        else:
            await ceremony.agree(answers, await ceremony.propose(answers))
        await ceremony.perform(self.said.append)

    def bundle(self, session: int = 1) -> bytes:
        return (self.directory / f"session-{session}.bundle").read_bytes()

    @property
    def transcript(self) -> str:
        return (self.directory / "transcript.jsonl").read_text()

    @property
    def keys(self) -> list[str]:
        return list(self.engine.key_ids(made_before=datetime.now(UTC) + timedelta(days=1)))

    def opened_text(self) -> str:
        """What a run after a crash reads."""
        ledger = DirectoryLedger(self.directory)
        try:
            return ledger.read()
        finally:
            ledger.close()
