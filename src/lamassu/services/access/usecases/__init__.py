"""What access does, one module per verb; `AccessService` is its face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.kernel.identity import Caller, Peer, Principal
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.access import rules
from lamassu.services.access.contract import (
    NO_GROUNDS,
    Credential,
    CredentialKind,
    Grounds,
    IssuedCredential,
    Mode,
    RootKeyExport,
)
from lamassu.services.access.ports import CredentialStore, PrivateFiles
from lamassu.services.access.usecases.authenticate import Authenticator
from lamassu.services.access.usecases.establish import establish_hierarchy, take_root_key_out
from lamassu.services.access.usecases.find_leftovers import find_leftovers
from lamassu.services.access.usecases.hierarchy import find_hierarchy, get_hierarchy
from lamassu.services.access.usecases.issue_credential import issue_credential
from lamassu.services.access.usecases.revoke_credential import revoke_credential
from lamassu.services.access.usecases.settle_grounds import (
    Settled,
    grounds_to_issue,
    grounds_to_lower_mode,
)
from lamassu.services.access.usecases.settle_mode import lower_mode, settle_mode
from lamassu.services.ca.contract import AdminStanding, Approvals
from lamassu.services.kms.contract import PlatformKeys


class AccessService:
    """The contracts `Principals`, `InternalCa` and `InstallationMode`, and the CA's `People`."""

    def __init__(
        self,
        *,
        storage: CredentialStore,
        keys: PlatformKeys,
        files: PrivateFiles,
        clock: Clock,
        public_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """`public_hosts` are those of the platform's public URLs. `approvals` is set later, as
        the CA needs access first: until then nobody guards anything."""
        self.approvals: Approvals | None = None
        self._storage = storage
        self._public_hosts = public_hosts
        self._keys = keys
        self._files = files
        self._clock = clock
        self._authenticator = Authenticator(storage=storage, clock=clock)

    async def establish(
        self, *, caller: Caller, export_root_key_to: RootKeyExport | None = None
    ) -> None:
        hierarchy = await find_hierarchy(self._storage)
        if hierarchy is None:
            hierarchy = await establish_hierarchy(
                caller=caller, keys=self._keys, storage=self._storage, clock=self._clock
            )
            self._authenticator.forget()
        if export_root_key_to is not None:
            await take_root_key_out(
                hierarchy.root,
                export_root_key_to,
                caller=caller,
                keys=self._keys,
                storage=self._storage,
                files=self._files,
            )

    async def holds_root_key(self) -> bool:
        hierarchy = await find_hierarchy(self._storage)
        return hierarchy is None or hierarchy.root.key_id is not None

    async def root_key_id(self) -> str | None:
        hierarchy = await find_hierarchy(self._storage)
        return None if hierarchy is None else hierarchy.root.key_id

    async def authenticate(self, peer: Peer) -> Principal | None:
        return await self._authenticator.authenticate(peer)

    async def issue(
        self,
        kind: CredentialKind,
        name: str,
        *,
        lifetime: timedelta,
        caller: Caller,
        hosts: Sequence[str] = (),
        shares_hosts: bool = False,
        grounds: Grounds = NO_GROUNDS,
    ) -> IssuedCredential:
        rules.check_credential_name(name)
        now = self._clock.now()
        settled = Settled()
        if kind is CredentialKind.ADMIN:
            settled = await grounds_to_issue(
                name, grounds, approvals=self.approvals, storage=self._storage, now=now
            )
        async with self._spending(settled, caller):
            return await issue_credential(
                kind,
                name,
                lifetime=lifetime,
                hosts=hosts,
                configured_hosts=None if shares_hosts else self._public_hosts,
                caller=caller,
                keys=self._keys,
                storage=self._storage,
                now=now,
                grounds=settled,
            )

    async def admins(self) -> Mapping[str, AdminStanding]:
        """See `lamassu.services.ca.contract.People`."""
        return await self._storage.admin_standings(self._clock.now())

    async def own_hosts(self) -> frozenset[str]:
        certified = (rules.hosts_of(one.der) for one in await self.list() if not one.revoked_at)
        hosts = self._public_hosts.union(*certified)
        return frozenset(host for host in hosts if not rules.is_loopback(host))

    async def list(self, kind: CredentialKind | None = None) -> Sequence[Credential]:
        return await self._storage.unexpired(self._clock.now(), kind=kind)

    async def revoke(self, name_or_serial: str, *, caller: Caller) -> Sequence[Credential]:
        revoked = await revoke_credential(
            name_or_serial, caller=caller, storage=self._storage, now=self._clock.now()
        )
        self._authenticator.forget()
        return revoked

    async def trust_anchor_pem(self) -> bytes:
        hierarchy = await get_hierarchy(self._storage)
        return pem_of(hierarchy.root.der) + pem_of(hierarchy.issuing.der)

    async def settle_mode(self, configured: Mode, *, caller: Caller) -> Mode:
        return await settle_mode(configured, caller=caller, storage=self._storage)

    async def lower_mode(self, *, caller: Caller, grounds: Grounds = NO_GROUNDS) -> None:
        settled = await grounds_to_lower_mode(
            grounds, approvals=self.approvals, storage=self._storage
        )
        async with self._spending(settled, caller):
            await lower_mode(caller=caller, storage=self._storage, grounds=settled)

    @asynccontextmanager
    async def _spending(self, settled: Settled, caller: Caller) -> AsyncIterator[None]:
        """Do the deed, which keeps by itself that its approval is used, and then tell the CA.

        Where that fails the deed stands all the same: the CA is told when somebody tries to use
        the approval again.
        """
        try:
            yield
        except Conflict as refusal:
            if refusal.code == "approval_spent":
                await self._tell_spent(settled, caller)
            raise
        await self._tell_spent(settled, caller)

    async def _tell_spent(self, settled: Settled, caller: Caller) -> None:
        if self.approvals is not None:
            with suppress(Unavailable):
                await self.approvals.settle(settled.approval_id, caller)

    async def leftovers_of_development(self) -> Sequence[str]:
        return await find_leftovers(self._storage, now=self._clock.now())
