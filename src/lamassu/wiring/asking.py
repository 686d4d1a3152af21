"""Who asks, at the host, for what approvers guard: a person who shows their certificate's key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamassu.kernel.errors import Forbidden, LamassuError, RuleViolation
from lamassu.kernel.identity import Caller, Peer, PrincipalKind
from lamassu.kernel.records import Json
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.installation import Installation
from lamassu.services.access.contract import Grounds, HeldCertificate, RootKeyProof
from lamassu.services.access.rules import holds_key
from lamassu.services.access.usecases import AccessService
from lamassu.services.ca.contract import Demand


@dataclass(frozen=True, slots=True)
class Asking:
    """What an operator says of it on the command line. `asks` and `renews` are certificate files,
    NAME.crt with NAME.key beside it; by default the installation's own admin asks."""

    asks: Path | None = None
    approval_id: str = ""
    renews: Path | None = None
    root_key: Path | None = None
    root_passphrase: Path | None = None

    async def grounds(
        self, access: AccessService, installation: Installation, command: Mapping[str, Json]
    ) -> Grounds:
        """Read what was named. `command` is what approvers are shown, and bound to.

        Raises `RuleViolation` (`option_refused`), `OSError`, and `Forbidden` where who asks is
        nobody.
        """
        if self.renews is not None:
            held = await asyncio.to_thread(_held, self.renews, "renew")
            return Grounds(renews=held)
        if self.root_key is not None:
            return Grounds(root_key=await asyncio.to_thread(self._root_key))
        asking = await self._asking(access, installation)
        if asking is None:
            return Grounds()
        return Grounds(demand=Demand(asking, command, self.approval_id))

    async def _asking(self, access: AccessService, installation: Installation) -> Caller | None:
        file = self.asks or installation.admin_certificate
        try:
            held = await asyncio.to_thread(_held, file, "as")
            principal = await access.authenticate(Peer((held.der,)))
        except (LamassuError, OSError):
            if self.asks is None:
                return None  # nobody asks, which suffices where nobody guards
            raise
        if principal is None or principal.kind is not PrincipalKind.ADMIN:
            if self.asks is None:
                return None
            raise Forbidden(f"{file} is no admin's certificate of this platform")
        return Caller(principal)

    def _root_key(self) -> RootKeyProof:
        assert self.root_key is not None  # the caller asked
        if self.root_passphrase is None:
            raise RuleViolation(
                "--root-key goes with --root-passphrase-file", code="option_refused"
            )
        return RootKeyProof(self.root_key.read_bytes(), self.root_passphrase.read_bytes().strip())


NO_ASKING = Asking()


def held_certificate(certificate: Path, key: Path) -> HeldCertificate | None:
    """Both from their files, where they are and belong together."""
    try:
        held = HeldCertificate(ders_of(certificate.read_bytes())[0], key.read_bytes())
    except (LamassuError, OSError, IndexError):
        return None
    return held if holds_key(held.der, held.key_pem) else None


def _held(certificate: Path, option: str) -> HeldCertificate:
    held = held_certificate(certificate, certificate.with_suffix(".key"))
    if held is None:
        raise RuleViolation(
            f"--{option}: {certificate} and {certificate.with_suffix('.key').name} beside it are "
            "no certificate and its key",
            code="option_refused",
        )
    return held
