"""What a device is told to trust (RFC 7030 §4.1.3)."""

from __future__ import annotations

from itertools import takewhile

from lamassu.kernel.errors import NotFound
from lamassu.services.ca.contract import Authorities
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import Dms


async def distribute_cas(
    dms: Dms, *, authorities: Authorities, defaults: DmsDefaults
) -> list[bytes]:
    """The enrolment CA and the CAs above it up to the root, then the managed CAs and theirs,
    each once; of a CA that got a new key every generation that is not revoked, and the
    certificates by which they vouch for each other (RFC 7030 §4.1.3). CAs that are gone are
    passed over.

    The enrolment CA is left out only where the DMS says so and names others. What lets devices
    in is nothing that they should trust: bootstrap CAs are in no answer (rule 16).
    """
    settings = dms.settings
    issuing = await _path(settings.enrollment.enrollment_ca, authorities)
    letting_in = (
        *defaults.reserved_cas,
        *settings.enrollment.authentication.client_certificate.validation_cas,
    )
    # whichever generation is named, the line is meant
    barred = {await first_generation(ca_id, authorities) for ca_id in letting_in} - issuing.keys()
    managed: dict[str, bytes] = {}
    for ca_id in settings.ca_distribution.managed_cas:
        # a path ends before a bootstrap CA: whoever stands above that one vouches for it
        path = await _path(ca_id, authorities)
        managed |= takewhile(lambda ca: ca[0] not in barred, path.items())
    if managed and not settings.ca_distribution.include_enrollment_ca:
        issuing = {}
    return list(dict.fromkeys((*issuing.values(), *managed.values())))


async def first_generation(ca_id: str, authorities: Authorities) -> str:
    """The id that the CA's whole line goes by; its own while nobody knows it."""
    try:
        return (await authorities.get_ca(ca_id)).first_generation
    except NotFound:
        return ca_id


async def _path(ca_id: str, authorities: Authorities) -> dict[str, bytes]:
    """The path by id of each CA's line, then what else belongs to these lines, numbered."""
    if not ca_id:
        return {}
    try:
        path = await authorities.path_of(ca_id)
    except NotFound:
        return {}
    found = {ca.first_generation: ca.certificate.der for ca in path}
    for ca in path:
        line = await authorities.generations_of(ca.id)
        if len(line) == 1:
            continue
        across = await authorities.cross_certificates_of(ca.id)
        earlier = (one for one in line if one.id != ca.id and one.revoked_by is None)
        others = (*(one.certificate.der for one in earlier), *across)
        found |= {f"{ca.first_generation}/{number}": der for number, der in enumerate(others)}
    return found
