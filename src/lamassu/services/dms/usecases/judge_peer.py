"""Judge the other end of the connection, before anything of its request is looked at."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Forbidden, NotFound, Unauthenticated
from lamassu.kernel.identity import Peer
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.paths import Purpose
from lamassu.services.ca.contract import (
    Authorities,
    CertificateStanding,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
)
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.settings import RevocationCheck
from lamassu.services.dms.rules.peer import (
    VerifiedPeer,
    check_issued_as_it_stands,
    check_status_unknown,
    check_unrevoked,
    verify_peer,
)
from lamassu.services.dms.usecases.dms_catalog import AuthorityCatalog


class PeerJudge:
    """Verifies peers for enrolment and re-enrolment, and asks for their revocation."""

    def __init__(
        self, *, authorities: Authorities, catalog: AuthorityCatalog, clock: Clock
    ) -> None:
        self._authorities = authorities
        self._catalog = catalog
        self._clock = clock

    async def admit_bootstrap(self, peer: Peer, dms: Dms) -> VerifiedPeer:
        """A peer that may enroll devices: issued under a validation CA, in force, unrevoked.

        Raises `Unauthenticated`, then `Forbidden`.
        """
        settings = dms.settings.enrollment.authentication.client_certificate
        anchors = await self._find_all(settings.validation_cas)
        verified = verify_peer(
            peer,
            anchors=[ca.certificate.der for ca in anchors],
            now=self._clock.now(),
            purpose=Purpose.CLIENT_AUTH if settings.require_valid_chain else Purpose.ANY,
            kept_certificates=settings.chain_level_validation,
            allow_expired=settings.allow_expired,
        )
        standing = await self.standing_of(verified, anchors, settings.check_revocation)
        if standing is not None:
            check_unrevoked(standing)
        return verified

    async def verify_device(
        self, peer: Peer, dms: Dms
    ) -> tuple[VerifiedPeer, CertificateStanding | None]:
        """A peer whose certificate one of the DMS's device CAs signed itself, and its standing.

        Whether that is the device's current certificate, and what a revocation means, is the
        caller's to judge. Raises `Unauthenticated`, or `Forbidden` for an unknown status.
        """
        settings = dms.settings.reenrollment
        issuers = (
            dms.settings.enrollment.enrollment_ca,
            *settings.additional_validation_cas,
        )
        anchors = await self._find_all(issuers)
        verified = verify_peer(
            peer,
            anchors=[ca.certificate.der for ca in anchors],
            now=self._clock.now(),
            purpose=Purpose.ANY,  # it is compared with the slot's, whatever it is for
            kept_certificates=1,
            allow_expired=settings.enable_expired_renewal,
        )
        return verified, await self.standing_of(verified, anchors, RevocationCheck.REQUIRED)

    async def standing_of(
        self,
        peer: VerifiedPeer,
        anchors: Sequence[CertificationAuthority],
        check: RevocationCheck,
    ) -> CertificateStanding | None:
        """What its issuer says of it now; `None` when none of ours is that issuer and `check`
        lets it pass. Issuers are trusted by their exact certificate (rules 9, 14); what one of
        ours signed is told by its key, whichever certificate of it was shown.

        Raises `Unauthenticated` for a serial number that our own CA never issued, and for
        anything but the very octets that it issued, `Forbidden` (`revocation_unknown`,
        `certificate_revoked`).
        """
        issuer = await self._find_issuer(peer, anchors)
        if issuer is not None:
            standing = await self._authorities.standing(issuer.id, peer.facts.serial_number)
            if standing.known or standing.revoked:
                check_issued_as_it_stands(peer, standing)
                return standing
            if issuer.certificate.type is CertificateType.MANAGED:
                raise Unauthenticated(
                    f"invalid certificate: the CA {issuer.id} knows no such certificate",
                    code="certificate_unknown",
                )
        known = [*anchors, issuer] if issuer is not None else anchors
        await self._check_path_unrevoked(peer, known)
        check_status_unknown(peer, check)
        return None

    async def _check_path_unrevoked(
        self, peer: VerifiedPeer, known: Sequence[CertificationAuthority]
    ) -> None:
        """Of CAs that we keep, only we can say that they were revoked: read anew (rule 24)."""
        keys = {certificate_facts(der).spki for der in peer.path[1:]}
        for ca in known:
            # by its key: a certificate across stands in for the CA's own in another path
            here = certificate_facts(ca.certificate.der).spki in keys
            if here and not await self._is_active(ca.id):
                raise Forbidden(
                    "certificate is revoked: a CA above it was", code="certificate_revoked"
                )

    async def _is_active(self, ca_id: str) -> bool:
        try:
            ca = await self._authorities.get_ca(ca_id)
        except NotFound:
            return False
        return ca.revoked_by is None and ca.certificate.stored_status is CertificateStatus.ACTIVE

    async def _find_issuer(
        self, peer: VerifiedPeer, anchors: Sequence[CertificationAuthority]
    ) -> CertificationAuthority | None:
        for anchor in anchors:
            if anchor.certificate.der == peer.issuer:
                return anchor
        shown = certificate_facts(peer.issuer)
        found = await self._authorities.find_ca_by_key_id(shown.ski) if shown.ski else None
        # with our CA's key it is our CA, if by a certificate across: ours to say who is revoked
        candidates = [*anchors, found] if found is not None else anchors
        for ca in candidates:
            if certificate_facts(ca.certificate.der).spki == shown.spki:
                return ca
        return None

    async def _find_all(self, ca_ids: Sequence[str]) -> list[CertificationAuthority]:
        lines = [await self._catalog.find(ca_id) for ca_id in dict.fromkeys(ca_ids) if ca_id]
        return [ca for line in lines for ca in line]
