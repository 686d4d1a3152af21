"""Show the certificate that a CSR would get, by the code that issues it; nothing is signed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.csr import parse_csr, verify_csr_signature
from lamassu.kernel.x509.keys import KeyFacts
from lamassu.kernel.x509.lint import LintRefusal, check_to_be_signed
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.profile_findings import users_of
from lamassu.services.ca.rules.profiles import check_profile, keeping
from lamassu.services.ca.rules.shown import ShownExtension, shown_extensions
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.rules.template import CertificateTemplate
from lamassu.services.ca.usecases.draft_certificate import Wish, draft
from lamassu.services.ca.usecases.issuers import Issuer, IssuingContexts, profile_not_found
from lamassu.services.ca.usecases.lint import lint_whole


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What would be asked for. `changed` stands in for the stored profile but for the fields
    `kept`, of which it says nothing; without `ca_id` the
    CA is the one that uses the profile, if that is one. `dms_id` is the DMS through which the
    device `device_id` would ask."""

    profile_id: str
    csr_der: bytes
    ca_id: str = ""
    device_id: str = ""
    dms_id: str = ""
    changed: IssuanceProfile | None = None
    kept: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """A certificate but for its signature; names as RFC 4514 writes them. `to_be_signed` is its
    DER, `lint` what linters would refuse."""

    ca_id: str
    profile_id: str
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    key: KeyFacts
    extensions: Sequence[ShownExtension]
    to_be_signed: bytes
    lint: Sequence[str]


class Previews:
    """Dry runs of issuing."""

    def __init__(
        self,
        *,
        store: CaStore,
        clock: Clock,
        contexts: IssuingContexts,
        own_hosts: Collection[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._contexts = contexts
        self._own_hosts = frozenset(own_hosts)

    async def preview(self, request: PreviewRequest) -> Preview:
        """Raises what issuing raises, before anything is signed: `RuleViolation`, `Malformed`,
        `NotFound` (CA, profile), `Forbidden`; also `RuleViolation` (`ca_missing`)."""
        csr = parse_csr(request.csr_der, newer_keys=True)
        verify_csr_signature(csr)
        now = self._clock.now()
        stored = await self._store.find_profile(request.profile_id)
        if stored is None:
            raise profile_not_found()
        changed = None
        if request.changed is not None:
            changed = keeping(replace(request.changed, id=stored.id), stored, request.kept)
            check_profile(changed, now)
        context = await self._contexts.find(
            request.ca_id or await self._only_user(stored, now),
            inline=changed,
            profile_id=request.profile_id,
            fresh=True,
        )
        check_may_sign(context.issuer.authority, now)
        template = draft(
            context.issuer,
            context.prepared,
            csr,
            Wish(owner=request.dms_id, device_id=request.device_id),
            now=now,
            own_hosts=self._own_hosts,
        )
        issuer = context.issuer.authority
        certificate = issuer.certificate
        octets = template.to_be_signed(KeyFacts(certificate.key_algorithm, certificate.key_size))
        return Preview(
            ca_id=issuer.id,
            profile_id=request.profile_id,
            subject=template.subject.rfc4514_string(),
            issuer=template.issuer.rfc4514_string(),
            not_before=template.not_before,
            not_after=template.not_after,
            key=csr.key,
            extensions=shown_extensions(template),
            to_be_signed=octets,
            lint=await _lint(context.issuer, template, octets),
        )

    async def _only_user(self, profile: IssuanceProfile, now: datetime) -> str:
        users = users_of(profile, await self._store.all_cas(), now)
        if len(users) != 1:
            known = ", ".join(user.authority.id for user in users[:5]) or "none"
            raise RuleViolation(
                f"name the CA that is to issue; those that use this profile are: {known}",
                code="ca_missing",
                field="ca_id",
            )
        return users[0].authority.id


async def _lint(issuer: Issuer, template: CertificateTemplate, octets: bytes) -> tuple[str, ...]:
    """What would keep the key from signing, and what pkilint finds beyond that."""
    found: list[str] = []
    try:
        check_to_be_signed(octets, signer=issuer.spki, issuer_path=issuer.path)
    except LintRefusal as refusal:
        found.append(refusal.text)
    try:
        await lint_whole(template)
    except LintRefusal as refusal:
        if refusal.text not in found:
            found.append(refusal.text)
    return tuple(found)
