"""A platform that lost keys does not start as if nothing were: its next signature would fail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import structlog

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import NotFound
from lamassu.services.ca.contract import CertificateStatus, CertificationAuthority
from lamassu.services.kms.contract import Key, KeyPurpose
from lamassu.wiring.platform import Platform

MOST_NAMED = 20

log = structlog.get_logger(__name__)


async def check_needed_keys(
    platform: Platform, problems: Mapping[str, str], *, without_lost: bool
) -> None:
    """Find the keys of live CAs, of responders and of the platform in their engines.

    Raises `NotFound` (`keys_lost`) where an engine answers that it has not got one, unless
    `without_lost`: then that is logged, as for the internal root's, which nothing running needs.
    Engines that do not answer keep nobody from starting; `problems` are as `find_lost` has them.
    """
    now = SystemClock().now()
    cas = {
        authority.key_id: authority.id
        for authority in await platform.ca.list_cas()
        if _is_live(authority, now)
    }
    search = await platform.kms.find_lost(cas, problems)
    for where, text in search.doubts.items():
        log.warning("keys_not_checked", where=where, text=text)
    root = await platform.access.root_key_id()
    lines = []
    for key in search.lost:
        if without_lost or key.key_id == root:
            log.warning("key_lost", text=_named(key, cas))
        else:
            lines.append(_named(key, cas))
    if not lines:
        return
    more = len(lines) - MOST_NAMED
    listed = "\n".join(f"  {line}" for line in lines[:MOST_NAMED])
    folder = platform.installation.directory
    raise NotFound(
        f"keys that are needed are not in their crypto engines:\n{listed}\n"
        + (f"  and {more} more\n" if more > 0 else "")
        + _remedy(platform)
        + "\nif they are lost for good:"
        f" lamassu serve --dir {folder} --without-lost-keys, and revoke what they signed for",
        code="keys_lost",
    )


def _is_live(authority: CertificationAuthority, now: datetime) -> bool:
    certificate = authority.certificate
    return authority.revoked_by is None and certificate.status_at(now) is CertificateStatus.ACTIVE


def _named(key: Key, cas: dict[str, str]) -> str:
    if key.key_id in cas:
        owner = f"CA {cas[key.key_id]}"
    elif key.purpose is KeyPurpose.PLATFORM:
        owner = f"the platform's {key.name}"
    else:
        owner = key.name
    return f"{owner}: key {key.key_id} in engine {key.engine_id}"


def _remedy(platform: Platform) -> str:
    directory = platform.installation.directory
    folders = [
        str(directory / section.storage_directory)
        for section in platform.settings.crypto_engines.software
    ]
    places = ", ".join(folders) or "the engine"
    return (
        f"restore {places} from the backup, or start with the database and the"
        " crypto_engines of config.yml that belong to these keys"
    )
