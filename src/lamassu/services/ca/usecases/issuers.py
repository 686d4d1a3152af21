"""CAs and profiles as the issuing path needs them: prepared once, used until they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ca.contract import CertificationAuthority, IssuanceProfile
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.names import name_from_der
from lamassu.services.ca.rules.prepared import PreparedProfile, prepared
from lamassu.services.ca.rules.template import (
    EncodedExtension,
    PublicationUrls,
    authority_key_identifier,
    publication_extensions,
    publication_urls,
)

_MOST_KEPT = 1024
DEEPEST = 64  # CAs above one another: guards walks against a damaged row


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA with all that the certificates it issues have in common.

    `name` writes back as the very bytes of the CA's own subject (RFC 5280 §4.1.2.4); `path` are
    its certificate (DER) and those of the CAs above.
    """

    authority: CertificationAuthority
    name: x509.Name
    key_identifier: EncodedExtension
    urls: PublicationUrls
    publication: Sequence[EncodedExtension]
    path: tuple[bytes, ...]

    @property
    def spki(self) -> bytes:
        """Of its key."""
        return certificate_facts(self.authority.certificate.der).spki

    def publication_under(self, profile: IssuanceProfile | None) -> Sequence[EncodedExtension]:
        """Where status and issuer are found, a profile's own addresses first."""
        urls = self.urls.overridden_by(profile)
        return self.publication if urls == self.urls else publication_extensions(urls)


async def cas_above(
    authority: CertificationAuthority, store: CaStore
) -> Sequence[CertificationAuthority]:
    """From its parent to its root; few, as hierarchies are shallow."""
    above: list[CertificationAuthority] = []
    parent_id = authority.parent_id
    while parent_id is not None and len(above) < DEEPEST:
        parent = await store.find_ca(parent_id)
        if parent is None:
            break
        above.append(parent)
        parent_id = parent.parent_id
    return above


async def certificates_above(
    authority: CertificationAuthority, store: CaStore
) -> tuple[bytes, ...]:
    """The certificates (DER) of the CAs above, from its parent to its root."""
    return tuple(one.certificate.der for one in await cas_above(authority, store))


def issuer_of(
    authority: CertificationAuthority,
    validation_urls: Sequence[str],
    *,
    above: Sequence[bytes] = (),
) -> Issuer:
    """Prepare a CA for issuing; `above` as `certificates_above` finds them."""
    certificate = authority.certificate
    parsed = x509.load_der_x509_certificate(certificate.der)
    urls = publication_urls(validation_urls, ca_id=authority.id, ski=certificate.subject_key_id)
    return Issuer(
        authority=authority,
        name=name_from_der(parsed.subject.public_bytes()),
        key_identifier=authority_key_identifier(bytes.fromhex(certificate.subject_key_id)),
        urls=urls,
        publication=tuple(publication_extensions(urls)),
        path=(certificate.der, *above),
    )


@dataclass(frozen=True, slots=True)
class IssuingContext:
    """An issuer and the profile that holds for a request; `fresh` if both were just read.

    `stored_profile_id` is empty for an inline profile.
    """

    issuer: Issuer
    prepared: PreparedProfile
    stored_profile_id: str
    fresh: bool

    @property
    def profile(self) -> IssuanceProfile:
        return self.prepared.profile


class IssuingContexts:
    """Prepared issuers and profiles, kept without asking the database. An id stands for the
    newest generation of its CA: whoever got a new key is changed by that, so it shows.

    What is kept may be old: the issuing transaction compares versions under lock, and a
    refusal that rests on something kept is judged again on what is read anew.
    """

    def __init__(self, store: CaStore, validation_urls: Sequence[str]) -> None:
        self._store = store
        self._validation_urls = tuple(validation_urls)
        self._issuers: dict[str, Issuer] = {}
        self._profiles: dict[str, PreparedProfile] = {}

    async def find(
        self, ca_id: str, *, inline: IssuanceProfile | None, profile_id: str | None, fresh: bool
    ) -> IssuingContext:
        """Issuer and profile: inline first, then by id, then the CA's default.

        Raises `NotFound` for either, `RuleViolation` (`profile_missing`).
        """
        issuer = None if fresh else self._issuers.get(ca_id)
        kept = issuer is not None
        if issuer is None:
            issuer = await self._read_issuer(ca_id)
        if inline is not None:
            return IssuingContext(issuer, prepared(inline), "", not kept)
        wanted = profile_id or issuer.authority.profile_id
        if not wanted:
            raise RuleViolation(
                "the CA has no default profile; name one", code="profile_missing", field="profile"
            )
        ready = None if fresh else self._profiles.get(wanted)
        if ready is not None:
            kept = True
        else:
            ready = await self._read_profile(wanted)
        return IssuingContext(issuer, ready, wanted, not kept)

    async def _read_issuer(self, ca_id: str) -> Issuer:
        authority = await newest_generation(ca_id, self._store)
        if authority is None:
            self._issuers.pop(ca_id, None)
            raise NotFound("CA not found", code="ca_not_found", field="ca_id")
        above = await certificates_above(authority, self._store)
        issuer = issuer_of(authority, self._validation_urls, above=above)
        if len(self._issuers) >= _MOST_KEPT:
            self._issuers.clear()
        self._issuers[ca_id] = issuer
        return issuer

    async def _read_profile(self, profile_id: str) -> PreparedProfile:
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            self._profiles.pop(profile_id, None)
            raise profile_not_found()
        if len(self._profiles) >= _MOST_KEPT:
            self._profiles.clear()
        ready = self._profiles[profile_id] = prepared(profile)
        return ready


async def newest_generation(ca_id: str, store: CaStore) -> CertificationAuthority | None:
    """The CA of this id or, if it got a new key, the one that followed it."""
    authority = await store.find_ca(ca_id)
    if authority is None or authority.successor_id is None:
        return authority
    return (await store.generations(ca_id))[-1]


def ca_not_found() -> NotFound:
    return NotFound("CA not found", code="ca_not_found")


def ca_exists() -> Conflict:
    return Conflict("CA already exists", code="ca_exists", field="id")


def certificate_not_found() -> NotFound:
    return NotFound("certificate not found", code="certificate_not_found")


def profile_not_found() -> NotFound:
    return NotFound("issuance profile not found", code="profile_not_found")
