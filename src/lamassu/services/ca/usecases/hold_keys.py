"""Have the KMS keep the keys that CAs need: each is bound to its CA's certificate."""

from __future__ import annotations

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.ports import CaStore
from lamassu.services.kms.contract import Binding, Keys


class KeyHolds:
    """A second commit beside the CA's own; events repeat what a crash left out."""

    def __init__(self, *, store: CaStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def hold(self, authority: CertificationAuthority, *, caller: Caller) -> None:
        """Bind the key of a CA that was just stored. A KMS out of reach is asked again by the
        event of the CA's making."""
        try:
            await self._bind(authority, caller)
        except Unavailable:
            return

    async def repair(self, ca_id: str, *, caller: Caller) -> None:
        """Bind what should be bound already. Raises `Unavailable` when it should be tried
        again."""
        authority = await self._store.find_ca(ca_id)
        if authority is not None:
            await self._bind(authority, caller)

    async def _bind(self, authority: CertificationAuthority, caller: Caller) -> None:
        if not authority.key_id:
            return
        binding = Binding("certificate", authority.certificate.serial_number)
        try:
            await self._keys.bind(authority.key_id, binding, caller=caller)
        except NotFound:
            return  # a key that is not here cannot be deleted here
