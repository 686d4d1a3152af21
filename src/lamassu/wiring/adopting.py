"""`lamassu key adopt`: on the host, past the API, which never learns what an engine has."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.identity import system_caller
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases.adopt_keys import Adopting, Adoption
from lamassu.wiring.platform import Platform

__all__ = ["Adopting", "Adoption", "adopt_keys", "wanted_adoption"]

CALLER = system_caller("lamassu key adopt")


def wanted_adoption(
    engine_id: str, purpose: str, *, dry_run: bool, key_ids: Sequence[str] = ()
) -> Adopting:
    """What an operator asked for; an empty engine is the default one."""
    ids = tuple(key_id.strip().lower() for key_id in key_ids)
    return Adopting(engine_id or None, KeyPurpose(purpose), dry_run, ids)


async def adopt_keys(platform: Platform, wanted: Adopting) -> Sequence[Adoption]:
    """Give keys of an engine rows. Raises `RuleViolation` (`unknown_engine`,
    `engine_not_for_ca_keys`), `Unavailable` where a named key is not there."""
    return await platform.kms.adopt(wanted, caller=CALLER)
