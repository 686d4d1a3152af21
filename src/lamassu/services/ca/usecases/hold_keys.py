"""Have the KMS keep the keys that certificates need: each is bound to its certificate."""

from __future__ import annotations

from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import Certificate, CertificateType, CertificationAuthority
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

    async def hold_certificate(self, certificate: Certificate, *, caller: Caller) -> None:
        """The same for the key of an end entity, if it is one of the KMS."""
        try:
            await self._bind_subject(certificate, caller)
        except Unavailable:
            return

    async def repair_certificate(self, serial_number: str, *, caller: Caller) -> None:
        """As `repair`, for an end entity's key."""
        certificate = await self._store.find_certificate(serial_number)
        if certificate is not None:
            await self._bind_subject(certificate, caller)

    async def _bind_subject(self, certificate: Certificate, caller: Caller) -> None:
        if certificate.type is not CertificateType.MANAGED or certificate.is_ca:
            return
        # what we issue to a key has the key's id as its subject key identifier
        await self._bind_key(certificate.subject_key_id, certificate.serial_number, caller)

    async def _bind(self, authority: CertificationAuthority, caller: Caller) -> None:
        if authority.key_id:
            await self._bind_key(authority.key_id, authority.certificate.serial_number, caller)

    async def _bind_key(self, key_id: str, serial_number: str, caller: Caller) -> None:
        try:
            await self._keys.bind(key_id, Binding("certificate", serial_number), caller=caller)
        except NotFound:
            return  # a key that is not here cannot be deleted here
