"""`lamassu key adopt`: on the host, past the API, which never learns what an engine has."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.identity import system_caller
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases.adopt_keys import Adopting, Adoption
from lamassu.wiring.platform import Platform

__all__ = ["Adoption", "adopt_keys"]

CALLER = system_caller("lamassu key adopt")


async def adopt_keys(
    platform: Platform, *, engine_id: str, purpose: str, dry_run: bool
) -> Sequence[Adoption]:
    """Give the unclaimed keys of an engine (the default one for an empty id) rows. Raises
    `RuleViolation`: `unknown_engine`, `engine_not_for_ca_keys`."""
    wanted = Adopting(engine_id or None, KeyPurpose(purpose), dry_run)
    return await platform.kms.adopt(wanted, caller=CALLER)
