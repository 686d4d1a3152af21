"""Tell whose certificate a peer has shown (decision 2, security rules 1 and 2)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Malformed, Unauthenticated
from lamassu.kernel.identity import Peer, Principal
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.paths import PathInvalid, Purpose, verify_path
from lamassu.services.access import rules
from lamassu.services.access.contract import Credential, CredentialKind
from lamassu.services.access.ports import CredentialStore

JUDGEMENT_LIFETIME = timedelta(seconds=5)
JUDGEMENTS_MAX = 1024
LEAF_LENGTH_MAX = 16 * 1024
OURS_BUT_UNFIT = frozenset(
    {"certificate_expired", "certificate_not_yet_valid", "certificate_purpose"}
)


@dataclass(frozen=True, slots=True)
class _Issuer:
    """How a certificate of the internal CA can be told from a stranger's at a glance."""

    der: bytes
    name_der: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class _Judgement:
    credential: Credential
    made_at: datetime

    def holds(self, now: datetime) -> bool:
        age = now - self.made_at
        return timedelta(0) <= age < JUDGEMENT_LIFETIME and now <= self.credential.not_after


class Authenticator:
    """Judges peers, and remembers what it found for at most five seconds.

    For an admin only the path is remembered: whether the certificate is revoked is read each
    time, so that a revocation by another process (`lamassu admin revoke`) counts at once.
    """

    def __init__(self, *, storage: CredentialStore, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._issuers: tuple[_Issuer, ...] = ()
        self._judgements: OrderedDict[bytes, _Judgement] = OrderedDict()
        self._epoch = 0

    def forget(self) -> None:
        """Remember nothing, and let no judgement that is being made be remembered."""
        self._epoch += 1
        self._issuers = ()
        self._judgements.clear()

    async def authenticate(self, peer: Peer) -> Principal | None:
        """See `Principals.authenticate`."""
        leaf = peer.certificate
        if leaf is None or len(leaf) > LEAF_LENGTH_MAX:
            return None
        digest = hashlib.sha256(leaf).digest()
        judgement = self._judgements.get(digest)
        if judgement is not None and judgement.holds(self._clock.now()):
            credential = judgement.credential
            if credential.kind is CredentialKind.ADMIN:
                stored = await self._storage.find_credential(credential.serial_number)
                rules.check_stored(leaf, _uris(leaf), stored)
        else:
            found = await self._judge(leaf, digest)
            if found is None:
                return None
            credential = found
        return Principal(rules.PRINCIPAL_KINDS[credential.kind], credential.name)

    async def _judge(self, leaf: bytes, digest: bytes) -> Credential | None:
        epoch, now = self._epoch, self._clock.now()
        facts = await self._facts_if_ours(leaf)
        if facts is None or not self._verify(leaf, now):
            return None
        stored = await self._storage.find_credential(facts.serial_number)
        credential = rules.check_stored(leaf, _uris(leaf), stored)
        if epoch == self._epoch:
            self._remember(digest, _Judgement(credential, now))
        return credential

    async def _facts_if_ours(self, leaf: bytes) -> CertificateFacts | None:
        """Names before signatures: strangers buy no expensive checks (rule 21)."""
        if not self._issuers:
            self._issuers = await self._load_issuers()
        likely = [issuer for issuer in self._issuers if issuer.name_der in leaf]
        if not likely:
            return None
        try:
            facts = certificate_facts(leaf)
        except Malformed:
            return None
        ours = any(i.name_der == facts.issuer_der and i.key_id == facts.aki for i in likely)
        return facts if ours else None

    async def _load_issuers(self) -> tuple[_Issuer, ...]:
        """Every CA of the internal hierarchy. The root signs no credential: its path would
        end here too, but no credential of its making is stored.
        """
        authorities = await self._storage.authorities()
        read = [(authority.der, certificate_facts(authority.der)) for authority in authorities]
        return tuple(_Issuer(der, facts.subject_der, facts.ski) for der, facts in read)

    def _verify(self, leaf: bytes, now: datetime) -> bool:
        """Whether the internal CA signed it. Raises `Unauthenticated` if it did and it is unfit.

        Each CA of ours is an anchor, by exact certificate (rule 9): what the peer sent
        beside its own plays no part.
        """
        anchors = [issuer.der for issuer in self._issuers]
        try:
            verify_path(
                leaf, intermediates=(), anchors=anchors, at=now, purpose=Purpose.CLIENT_AUTH
            )
        except PathInvalid as fault:
            if fault.code in OURS_BUT_UNFIT:
                raise Unauthenticated(fault.text, code=fault.code) from fault
            return False
        return True

    def _remember(self, digest: bytes, judgement: _Judgement) -> None:
        self._judgements[digest] = judgement
        self._judgements.move_to_end(digest)
        if len(self._judgements) > JUDGEMENTS_MAX:
            self._judgements.popitem(last=False)


def _uris(leaf: bytes) -> list[str]:
    """The URIs by which a certificate names its holder. A service that serves too has host
    names beside it; any other kind of name is nobody's."""
    certificate = x509.load_der_x509_certificate(leaf)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    hosts = sum(isinstance(name, x509.DNSName | x509.IPAddress) for name in names)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris if len(uris) + hosts == len(list(names)) else []
