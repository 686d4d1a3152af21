"""The keys of CAs that come from elsewhere: taken in from a file, or found in an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.ca.contract import CertificateType
from lamassu.services.ca.rules.adoption import FoundAuthority
from lamassu.services.kms.contract import Key, KeyPurpose
from lamassu.services.kms.usecases.adopt_keys import Adopting
from lamassu.services.kms.usecases.private_keys import parse_private_key, spki_of
from lamassu.wiring.importing.material import SourceAuthority, SourceKey
from lamassu.wiring.platform import Platform

LOST = ("key_lost", "key_damaged")
"""Codes of an engine that answers, and has not got the key."""


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a CA's key is here; empty, with the reason, if it is not."""

    key_id: str = ""
    engine_id: str = ""
    type: CertificateType = CertificateType.IMPORTED_WITHOUT_KEY
    problem: str = ""


async def with_key(
    platform: Platform, authority: SourceAuthority, *, caller: Caller, dry_run: bool
) -> tuple[FoundAuthority, str]:
    """The CA with its key where it is here now, and why it is not, if it is not.

    Only a public key decides that a key is a CA's: whatever a source calls it. Raises
    `Unavailable` while an engine does not answer: without its key a CA would stay without.
    """
    found = authority.found
    if authority.key is None:
        return found, ""
    place = await _place(platform, found, authority.key, caller, dry_run)
    kept = replace(found, key_id=place.key_id, engine_id=place.engine_id, type=place.type)
    return kept, place.problem


async def _place(
    platform: Platform, found: FoundAuthority, key: SourceKey, caller: Caller, dry_run: bool
) -> KeyPlace:
    spki = certificate_facts(found.der).spki
    key_id = key_id_of(spki)
    kind = CertificateType.IMPORTED_WITH_KEY if key.pem else CertificateType.MANAGED
    known = await platform.kms.find_by_public_key(spki)
    if known is not None:
        return _of_known(known, kind)
    try:
        if not key.pem:
            found_in = await _in_engine(platform, key_id, key.engine_id, caller, dry_run)
            return replace(found_in, type=kind) if found_in.key_id else found_in
        if dry_run:
            return _judged(platform, key, key_id, kind)
        taken = await platform.kms.take_in(
            key.pem, public_key=spki, purpose=KeyPurpose.CA, name=found.id, caller=caller
        )
    except Unavailable:
        raise
    except LamassuError as error:
        return KeyPlace(problem=f"its key was not taken in: {error.text}")
    return KeyPlace(taken.key_id, taken.engine_id, kind)


def _of_known(key: Key, kind: CertificateType) -> KeyPlace:
    if key.purpose is not KeyPurpose.CA:
        return KeyPlace(problem=f"its key is here already, as a {key.purpose} key")
    if key.has_signed and not key.bindings:
        # security rule 9: any of these messages may have been a certificate
        return KeyPlace(problem="its key has signed messages of callers and becomes no CA's")
    return KeyPlace(key.key_id, key.engine_id, kind)


def _judged(platform: Platform, key: SourceKey, key_id: str, kind: CertificateType) -> KeyPlace:
    if key_id_of(spki_of(parse_private_key(key.pem))) != key_id:
        return KeyPlace(problem="its key is not its certificate's")
    return KeyPlace(key_id, platform.settings.crypto_engines.chosen_id, kind)


async def _in_engine(
    platform: Platform, key_id: str, engine_id: str, caller: Caller, dry_run: bool
) -> KeyPlace:
    """Found in the engine by its id, which is a digest of the public key."""
    ids = () if dry_run else (key_id,)
    wanted = Adopting(engine_id or None, KeyPurpose.CA, dry_run, ids)
    try:
        adoptions = await platform.kms.adopt(wanted, caller=caller)
    except Unavailable as error:
        if error.code not in LOST:
            raise
        return KeyPlace(problem=f"its key was not found: {error.text}")
    for adoption in adoptions:
        if adoption.found.key_id == key_id:
            if adoption.problem:
                return KeyPlace(problem=f"its key cannot be taken over: {adoption.problem}")
            row = None if dry_run else await platform.kms.find(key_id)
            return KeyPlace(key_id, row.engine_id if row else engine_id)
    name = f"engine {engine_id}" if engine_id else "the default engine"
    if dry_run:
        # engines that list no keys look for one as it is taken over
        return KeyPlace(problem=f"a dry run does not find its key {key_id} in {name}")
    return KeyPlace(problem=f"{name} has no key {key_id}")
