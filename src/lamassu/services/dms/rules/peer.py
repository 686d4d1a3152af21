"""Is the other end of the connection whom a CA of the DMS says? (decision 26a: 401, then 403)"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from lamassu.kernel.errors import Forbidden, LamassuError, Unauthenticated
from lamassu.kernel.identity import Peer
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import check_key_facts
from lamassu.kernel.x509.paths import PathInvalid, Purpose, verify_path
from lamassu.services.ca.contract import CertificateStanding, RevocationReason
from lamassu.services.dms.model.settings import RevocationCheck

MOST_CERTIFICATES = 10
MOST_OCTETS = 64 * 1024  # of the whole chain

_REFUSALS = {
    "certificate_expired": ("certificate_expired", "expired certificate"),
    "certificate_not_yet_valid": ("certificate_not_yet_valid", "invalid certificate"),
    "certificate_unknown_issuer": ("certificate_unknown", "invalid certificate"),
    "certificate_purpose": ("certificate_purpose", "invalid certificate"),
}


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A peer whose certificate a trusted CA signed. Revocation is another question.

    `path` leads from its certificate to the trust anchor.
    """

    certificate: bytes
    facts: CertificateFacts
    path: tuple[bytes, ...]

    @property
    def issuer(self) -> bytes:
        """The certificate of the CA that signed it."""
        return self.path[1]

    @property
    def issuer_sha256(self) -> str:
        """Names the verified issuer by its public key, in lower-case hex: another certificate
        of the same CA, which the peer may show instead, is no other issuer."""
        return hashlib.sha256(certificate_facts(self.issuer).spki).hexdigest()


def verify_peer(
    peer: Peer,
    *,
    anchors: Sequence[bytes],
    now: datetime,
    purpose: Purpose,
    kept_certificates: int = 0,
    allow_expired: bool = False,
) -> VerifiedPeer:
    """The peer's certificate, verified up to one of `anchors` (RFC 5280 §6).

    Only the first `kept_certificates` of those it presented count, all for 0. With
    `allow_expired` one that is past its end is judged at its beginning. Bounds are checked
    before any signature (rule 21). Raises `Unauthenticated`.
    """
    chain = peer.chain[:kept_certificates] if kept_certificates > 0 else peer.chain
    if not chain:
        raise Unauthenticated(
            "DMS auth mode not supported: it asks for a client certificate, and none came",
            code="certificate_missing",
        )
    if len(chain) > MOST_CERTIFICATES or sum(map(len, chain)) > MOST_OCTETS:
        raise Unauthenticated("invalid certificate: its chain is too long", code="path_invalid")
    facts = _bounded_facts(chain[0])
    past = allow_expired and facts.not_before <= now and facts.not_after < now
    try:
        path = verify_path(
            chain[0],
            intermediates=[c for c in chain[1:] if _is_bounded(c)],
            anchors=anchors,
            at=facts.not_before if past else now,
            purpose=purpose,
        )
    except PathInvalid as refusal:
        raise _refused(refusal) from None
    if facts.is_ca or len(path) < 2:
        raise Unauthenticated(
            "invalid certificate: a CA certificate identifies no device", code="path_invalid"
        )
    return VerifiedPeer(chain[0], facts, path)


def _bounded_facts(certificate: bytes) -> CertificateFacts:
    """What a certificate says, if its key is one that we would verify with."""
    try:
        facts = certificate_facts(certificate)
        check_key_facts(facts.key, field="certificate")
    except LamassuError as fault:
        raise Unauthenticated(f"invalid certificate: {fault.text}", code="path_invalid") from None
    return facts


def _is_bounded(certificate: bytes) -> bool:
    try:
        _bounded_facts(certificate)
    except Unauthenticated:
        return False
    return True


def _refused(refusal: PathInvalid) -> Unauthenticated:
    code, text = _REFUSALS.get(refusal.code, ("path_invalid", "invalid certificate"))
    return Unauthenticated(f"{text}: {refusal.text}", code=code)


def certificate_revoked(standing: CertificateStanding) -> Forbidden:
    """The refusal of a certificate that was revoked, by itself or with a CA above it."""
    since = (
        f" since {standing.revocation_time:%Y-%m-%dT%H:%M:%SZ}" if standing.revocation_time else ""
    )
    return Forbidden(
        f"certificate is revoked{since}, reason {standing.reason.value}",
        code="certificate_revoked",
    )


def check_unrevoked(standing: CertificateStanding) -> None:
    """Raises `Forbidden` (`certificate_revoked`), its text says when and why."""
    if standing.revoked:
        raise certificate_revoked(standing)


def check_issued_as_it_stands(peer: VerifiedPeer, standing: CertificateStanding) -> None:
    """Refuse a certificate that is not, octet for octet, the one that our CA issued.

    From an ECDSA signature (r, s) anybody makes a second valid one (r, n - s): the certificate
    says the same and has another digest, under which no slot would know it (rule 16).
    Raises `Unauthenticated`.
    """
    if standing.der != peer.certificate:
        raise Unauthenticated(
            "invalid certificate: it is not as its CA issued it", code="certificate_unknown"
        )


def check_status_unknown(peer: VerifiedPeer, check: RevocationCheck) -> None:
    """Judge a certificate whose status none of our CAs knows (decision 22).

    Sources that it names itself are not asked yet: one that names some fails closed unless the
    check is off, one that names none passes with `if_available`. Raises `Forbidden`.
    """
    if check is RevocationCheck.OFF:
        return
    if check is RevocationCheck.IF_AVAILABLE and not names_revocation_source(peer.certificate):
        return
    raise Forbidden(
        "certificate status is unknown: none of the platform's CAs issued it; issue it here, "
        "or set check_revocation of the DMS",
        code="revocation_unknown",
    )


def names_revocation_source(certificate: bytes) -> bool:
    """Whether it says where its status can be asked for; unreadable counts as yes."""
    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return True
    sources = (x509.CRLDistributionPoints, x509.AuthorityInformationAccess)
    return any(isinstance(extension.value, sources) for extension in extensions)


def was_superseded(standing: CertificateStanding) -> bool:
    """Whether it was revoked only because a newer one took its place."""
    return standing.revoked and standing.reason is RevocationReason.SUPERSEDED
