"""The CA's facade: one module per deed behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch
from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import Json
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificationAuthority,
    Demand,
    IssuanceProfile,
    Issued,
    IssuedStanding,
    IssueRequest,
    Operation,
    People,
    RevocationListener,
    RevocationReason,
    RevokedEntry,
)
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.contract.requests import RefusedRequest
from lamassu.services.ca.model import (
    CaRequest,
    CaRevocation,
    CascadeJob,
    CaStats,
    CertificateRevocation,
    CertificateScope,
    RekeyPlan,
    RekeyRequest,
    StatusChange,
)
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.imported import BroughtCa
from lamassu.services.ca.rules.profile_findings import Finding
from lamassu.services.ca.rules.status import standing_of
from lamassu.services.ca.rules.subject_keys import CertificateOrder
from lamassu.services.ca.usecases.adopt_authorities import AuthorityAdoption
from lamassu.services.ca.usecases.adopt_certificates import CertificateAdoption
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.archive_certificates import Archiving
from lamassu.services.ca.usecases.change_status import StatusChanges
from lamassu.services.ca.usecases.create_ca import CaCreation
from lamassu.services.ca.usecases.create_certificate import CertificateCreation
from lamassu.services.ca.usecases.delete_ca import CaDeletion, Deletions
from lamassu.services.ca.usecases.hold_keys import KeyHolds
from lamassu.services.ca.usecases.import_ca import (
    CaImport,
    MaterialReader,
    PlatformCas,
    read_in_thread,
)
from lamassu.services.ca.usecases.import_certificate import CertificateImport
from lamassu.services.ca.usecases.import_signed import Imported, SignedImport
from lamassu.services.ca.usecases.issue_certificate import CertificateIssuing
from lamassu.services.ca.usecases.issuers import (
    DEEPEST,
    IssuingContexts,
    ca_not_found,
    certificate_not_found,
    profile_not_found,
)
from lamassu.services.ca.usecases.manage_profiles import ProfileManagement
from lamassu.services.ca.usecases.monitor_expiry import ExpiryMonitor
from lamassu.services.ca.usecases.move_ca_key import CaKeyMoving
from lamassu.services.ca.usecases.preview_certificate import Previews
from lamassu.services.ca.usecases.reissue_ca import Reissuing
from lamassu.services.ca.usecases.rekey_ca import Rekeying
from lamassu.services.ca.usecases.replay_enrolments import (
    ReplayWorker,
    WhatIf,
    replay_in_thread,
)
from lamassu.services.ca.usecases.request_certificate import CertificateRequests
from lamassu.services.ca.usecases.requests import Requests
from lamassu.services.ca.usecases.run_cascades import CascadeRunner
from lamassu.services.ca.usecases.sample_lint import LintMeter, SampledLint
from lamassu.services.ca.usecases.update_ca import Amendments
from lamassu.services.ca.usecases.use_ca_key import CaSignatures
from lamassu.services.kms.contract import Engine, Keys, MessageType


class CaService:
    """The CA; implements `lamassu.services.ca.contract.Authorities`."""

    def __init__(
        self,
        *,
        storage: CaStore,
        keys: Keys,
        clock: Clock,
        validation_urls: Sequence[str] = (),
        revocations: RevocationListener | None = None,
        default_profile_id: str = "",
        own_hosts: Collection[str] = (),
        people: People | None = None,
        production: bool = False,
        allow_cascade_delete: bool = False,
        replay_worker: ReplayWorker = replay_in_thread,
        platform_cas: PlatformCas | None = None,
        material_reader: MaterialReader = read_in_thread,
        lint_sample: float = 0.0,
        lint_meter: LintMeter | None = None,
    ) -> None:
        """`validation_urls` are bases such as `http://pki.example:8080`, under which OCSP, CRLs
        and CA certificates are found. `revocations` may be set later (the VA needs the CA
        first). `default_profile_id` is for CAs made in the seed's spelling without a profile.
        `own_hosts`, lower-case names and addresses of the platform itself, are certified for
        nobody who asks by a CSR. `people` are those who can be made approvers.
        In `production` no root of a rehearsal is taken in. `platform_cas` tells the
        certificates of the platform's own CA, which is never imported. `replay_worker` replays
        recorded enrolments, and `material_reader` reads files with CAs, where that holds up
        nobody. `lint_sample` is the share of what is issued that all linters read, which
        `lint_meter` counts.
        """
        self.revocations = revocations
        # Set when a cascade was begun: whoever runs `run_jobs` may wait for it.
        self.jobs_pending = asyncio.Event()
        self._store = storage
        self._keys = keys
        self._clock = clock
        contexts = IssuingContexts(storage, validation_urls)
        self.sampled_lint = SampledLint(
            store=storage, clock=clock, rate=lint_sample, meter=lint_meter
        )
        self._issuing = CertificateIssuing(
            store=storage,
            keys=keys,
            clock=clock,
            contexts=contexts,
            own_hosts=own_hosts,
            sampled=self.sampled_lint,
        )
        self.archiving = Archiving(store=storage, clock=clock)
        self.approvals = ApprovalDesk(store=storage, people=people, clock=clock)
        self._holds = KeyHolds(store=storage, keys=keys)
        # what the host's `lamassu import` brings from other systems
        self.certificate_adoption = CertificateAdoption(store=storage, clock=clock)
        self.authority_adoption = AuthorityAdoption(
            store=storage, holds=self._holds, clock=clock, platform_cas=platform_cas
        )
        self.key_moving = CaKeyMoving(store=storage, keys=keys, clock=clock, desk=self.approvals)
        self._creation = CaCreation(
            store=storage,
            keys=keys,
            clock=clock,
            desk=self.approvals,
            validation_urls=validation_urls,
            default_profile_id=default_profile_id,
        )
        self._rekeying = Rekeying(
            store=storage,
            keys=keys,
            clock=clock,
            desk=self.approvals,
            validation_urls=validation_urls,
        )
        self._reissuing = Reissuing(
            store=storage,
            keys=keys,
            clock=clock,
            desk=self.approvals,
            validation_urls=validation_urls,
        )
        self.deletions = Deletions(
            store=storage,
            keys=keys,
            clock=clock,
            desk=self.approvals,
            allow_cascade=allow_cascade_delete,
        )
        self.expiry = ExpiryMonitor(store=storage, clock=clock)
        self._changes = StatusChanges(
            store=storage, clock=clock, desk=self.approvals, publication=self
        )
        self._cascades = CascadeRunner(store=storage, clock=clock, publication=self)
        self._amendments = Amendments(store=storage, clock=clock, desk=self.approvals)
        self.previews = Previews(store=storage, clock=clock, contexts=contexts, own_hosts=own_hosts)
        self.what_if = WhatIf(
            store=storage,
            clock=clock,
            validation_urls=validation_urls,
            own_hosts=own_hosts,
            worker=replay_worker,
        )
        self._profiles = ProfileManagement(store=storage, clock=clock, desk=self.approvals)
        self._signatures = CaSignatures(store=storage, keys=keys, clock=clock)
        self._requests = CertificateRequests(
            store=storage,
            keys=keys,
            clock=clock,
            validation_urls=validation_urls,
            default_profile_id=default_profile_id,
        )
        self.requests = Requests(store=storage.requests, clock=clock)
        self._certificates = CertificateCreation(
            keys=keys, clock=clock, contexts=contexts, issuing=self._issuing, holds=self._holds
        )
        self._imports = CaImport(
            store=storage,
            keys=keys,
            clock=clock,
            platform_cas=platform_cas,
            reader=material_reader,
        )
        self._certificate_imports = CertificateImport(store=storage, clock=clock)
        self._signed = SignedImport(store=storage, keys=keys, clock=clock, production=production)

    # --- what other slices ask for (contract.Authorities) ---------------------------------

    async def get_ca(self, ca_id: str) -> CertificationAuthority:
        authority = await self._store.find_ca(ca_id)
        if authority is None:
            raise ca_not_found()
        return authority

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None:
        return await self._store.find_ca_by_key_id(subject_key_id)

    async def list_cas(self) -> Sequence[CertificationAuthority]:
        return await self._store.all_cas()

    async def generations_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        line = await self._store.generations(ca_id)
        if not line:
            raise ca_not_found()
        return line

    async def cross_certificates_of(self, ca_id: str) -> Sequence[bytes]:
        line = await self._store.generations(ca_id)
        if len(line) < 2:
            return ()
        own = {one.certificate.serial_number for one in line}
        found = await self._store.certificates_between(
            [one.id for one in line], [one.certificate.subject_key_id for one in line]
        )
        now = self._clock.now()
        # what a revoked generation vouched for is worth nothing, whatever its row says
        gone = {one.id for one in line if one.revoked_by is not None}
        return [
            one.der
            for one in found
            if one.serial_number not in own
            and one.issuer_ca_id not in gone
            and one.status_at(now) is CertificateStatus.ACTIVE
        ]

    async def path_of(self, ca_id: str) -> Sequence[CertificationAuthority]:
        path = [(await self.generations_of(ca_id))[-1]]
        while (parent_id := path[-1].parent_id) is not None and len(path) < DEEPEST:
            path.append(await self.get_ca(parent_id))
        return path

    async def get_profile(self, profile_id: str) -> IssuanceProfile:
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            raise profile_not_found()
        return profile

    async def issue(self, request: IssueRequest) -> Issued:
        try:
            issued = await self._issuing.issue(request)
        except LamassuError as refusal:
            await self.requests.keep_refusal(request, refusal)
            raise
        await self._holds.hold_certificate(issued.certificate, caller=request.caller)
        return issued

    async def keep_refused(self, refused: RefusedRequest) -> None:
        await self.requests.keep_refused(refused)

    async def find_issued(self, request_key: str) -> Certificate | None:
        return await self._store.find_issued(request_key)

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        return await self._store.find_certificate(serial_number)

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        return await self._store.find_certificates(serial_numbers)

    async def find_certificate_by_der(self, der: bytes) -> Certificate | None:
        return await self._store.find_certificate_by_der(der)

    async def standing(self, ca_id: str, serial_number: str) -> CertificateStanding:
        read_at = self._clock.now()
        return standing_of(await self._store.standing(ca_id, serial_number), read_at)

    async def revoked_under(self, ca_id: str) -> Sequence[RevokedEntry]:
        return await self._store.revoked_under(ca_id, now=self._clock.now())

    async def issued_under(self, ca_id: str, *, after: str, limit: int) -> Sequence[IssuedStanding]:
        return await self._store.issued_under(
            ca_id, after=after, limit=limit, now=self._clock.now()
        )

    async def revoke(self, serial_number: str, reason: RevocationReason, *, caller: Caller) -> bool:
        outcome = await self._changes.revoke(serial_number, reason, caller=caller)
        if outcome.job_id is not None:
            self.jobs_pending.set()
        return outcome.shown

    async def unreconciled(self, *, older_than: datetime, limit: int) -> Sequence[Certificate]:
        return await self._store.unreconciled(older_than=older_than, limit=limit)

    async def reconcile(self, serial_numbers: Sequence[str]) -> None:
        if serial_numbers:
            async with self._store.unit() as transaction:
                await transaction.mark_reconciled(serial_numbers)

    # --- what the routes ask for -----------------------------------------------------------

    def now(self) -> datetime:
        """The instant by which what is shown is judged expired."""
        return self._clock.now()

    async def create_ca(
        self, request: CaRequest, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        authority = await self.approvals.or_ask(
            self._creation.create(request, caller=caller, demand=demand)
        )
        await self._holds.hold(authority, caller=caller)
        return authority

    async def plan_rekey(self, ca_id: str, request: RekeyRequest) -> RekeyPlan:
        return await self._rekeying.plan(ca_id, request)

    async def rekey_ca(
        self, ca_id: str, request: RekeyRequest, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        authority = await self.approvals.or_ask(
            self._rekeying.rekey(ca_id, request, caller=caller, demand=demand)
        )
        await self._holds.hold(authority, caller=caller)
        return authority

    async def reissue_ca(
        self,
        ca_id: str,
        *,
        profile: IssuanceProfile | None,
        profile_id: str,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificationAuthority:
        """See `Reissuing.reissue`."""
        work = self._reissuing.reissue(
            ca_id, profile=profile, profile_id=profile_id, caller=caller, demand=demand
        )
        authority = await self.approvals.or_ask(work)
        await self._holds.hold(authority, caller=caller)
        return authority

    async def delete_ca(
        self, ca_id: str, *, cascade: bool, caller: Caller, demand: Demand | None = None
    ) -> CaDeletion:
        """See `Deletions.delete_ca`."""
        deletion = await self.approvals.or_ask(
            self.deletions.delete_ca(ca_id, cascade=cascade, caller=caller, demand=demand)
        )
        if deletion.job_id is not None:
            self.jobs_pending.set()
        return deletion

    async def hold_key_of(self, ca_id: str, *, caller: Caller) -> None:
        """Have the KMS keep this CA's key, if it does not already. Raises `Unavailable`."""
        await self._holds.repair(ca_id, caller=caller)

    async def hold_key_of_certificate(self, serial_number: str, *, caller: Caller) -> None:
        """The same for the key of a certificate that was made here. Raises `Unavailable`."""
        await self._holds.repair_certificate(serial_number, caller=caller)

    async def request_certificate(
        self, request: CaRequest, root_id: str, *, caller: Caller, demand: Demand | None = None
    ) -> AwaitedCa:
        """See `CertificateRequests.ask`; the root's approvers have to agree, if it has any."""
        approval = await self.approvals.require(Operation.CREATE_CHILD, [root_id], demand)
        awaited = await self._requests.ask(request, root_id, caller=caller)
        await self.approvals.settle(approval, caller)
        return awaited

    async def awaited(self) -> Sequence[AwaitedCa]:
        """The CAs that wait for an offline root's signature."""
        return await self._store.all_awaited()

    async def get_awaited(self, ca_id: str) -> AwaitedCa:
        return await self._requests.get(ca_id)

    async def withdraw_awaited(self, ca_id: str, *, caller: Caller) -> None:
        await self._requests.withdraw(ca_id, caller=caller)

    async def import_signed(
        self, content: bytes, root_fingerprint: str, *, caller: Caller
    ) -> Imported:
        """See `SignedImport.take_in`."""
        imported = await self._signed.take_in(content, root_fingerprint, caller=caller)
        for authority in imported.authorities:
            await self._holds.hold(authority, caller=caller)
        return imported

    async def import_ca(self, brought: BroughtCa, *, caller: Caller) -> CertificationAuthority:
        """See `CaImport.take`."""
        authority = await self._imports.take(brought, caller=caller)
        await self._holds.hold(authority, caller=caller)
        return authority

    async def import_certificate(
        self, der: bytes, metadata: Mapping[str, Json], *, caller: Caller
    ) -> Certificate:
        """See `CertificateImport.take`."""
        return await self._certificate_imports.take(der, metadata, caller=caller)

    async def create_certificate(self, order: CertificateOrder) -> Certificate:
        """See `CertificateCreation.create`."""
        return await self._certificates.create(order)

    async def ceremony_of(self, certificate: Certificate) -> str | None:
        """The CA that signed this, if its key is offline: its CRL is made at a ceremony."""
        issuer = await self._store.find_ca(certificate.issuer_ca_id)
        return issuer.id if issuer is not None and not issuer.key_id else None

    async def page_cas(
        self, query: ListQuery, *, common_name: str | None = None
    ) -> Page[CertificationAuthority]:
        return await self._store.page_cas(query, now=self._clock.now(), common_name=common_name)

    async def change_ca_status(
        self, ca_id: str, change: StatusChange, *, caller: Caller, demand: Demand | None = None
    ) -> CaRevocation:
        outcome = await self.approvals.or_ask(
            self._changes.change_ca(ca_id, change, caller=caller, demand=demand)
        )
        if outcome.job_id is not None:
            self.jobs_pending.set()
        return outcome

    async def change_certificate_status(
        self,
        serial_number: str,
        change: StatusChange,
        *,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificateRevocation:
        outcome = await self.approvals.or_ask(
            self._changes.change_certificate(serial_number, change, caller=caller, demand=demand)
        )
        if outcome.job_id is not None:
            self.jobs_pending.set()
        return outcome

    async def patch_ca_metadata(
        self, ca_id: str, patches: Sequence[Patch], *, caller: Caller
    ) -> CertificationAuthority:
        return await self._amendments.patch_ca_metadata(ca_id, patches, caller=caller)

    async def change_ca_profile(
        self, ca_id: str, profile_id: str, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        return await self.approvals.or_ask(
            self._amendments.change_profile(ca_id, profile_id, caller=caller, demand=demand)
        )

    async def change_ca_approvals(
        self,
        ca_id: str,
        policy: ApprovalPolicy | None,
        *,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificationAuthority:
        return await self.approvals.or_ask(
            self._amendments.change_approvals(ca_id, policy, caller=caller, demand=demand)
        )

    async def get_certificate(self, serial_number: str) -> Certificate:
        """Raises `NotFound` (`certificate not found`)."""
        certificate = await self._store.find_certificate(serial_number)
        if certificate is None:
            raise certificate_not_found()
        return certificate

    async def page_certificates(
        self, query: ListQuery, scope: CertificateScope
    ) -> Page[Certificate]:
        return await self._store.page_certificates(query, now=self._clock.now(), scope=scope)

    async def patch_certificate_metadata(
        self, serial_number: str, patches: Sequence[Patch], *, caller: Caller
    ) -> Certificate:
        return await self._amendments.patch_certificate_metadata(
            serial_number, patches, caller=caller
        )

    async def page_profiles(self, query: ListQuery) -> Page[IssuanceProfile]:
        return await self._store.page_profiles(query)

    async def create_profile(self, profile: IssuanceProfile, *, caller: Caller) -> IssuanceProfile:
        return await self._profiles.create(profile, caller=caller)

    async def profile_findings(self, profile: IssuanceProfile) -> tuple[Finding, ...]:
        return await self._profiles.findings(profile)

    async def update_profile(
        self,
        profile: IssuanceProfile,
        *,
        kept: Collection[str] = (),
        caller: Caller,
        demand: Demand | None = None,
    ) -> IssuanceProfile:
        return await self.approvals.or_ask(
            self._profiles.update(profile, kept=kept, caller=caller, demand=demand)
        )

    async def delete_profile(self, profile_id: str, *, caller: Caller) -> None:
        await self._profiles.delete(profile_id, caller=caller)

    async def sign(
        self,
        ca_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        caller: Caller,
    ) -> bytes:
        return await self._signatures.sign(
            ca_id,
            algorithm=algorithm,
            message=message,
            message_type=message_type,
            caller=caller,
        )

    async def verify(
        self,
        ca_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        signature: bytes,
    ) -> bool:
        return await self._signatures.verify(
            ca_id,
            algorithm=algorithm,
            message=message,
            message_type=message_type,
            signature=signature,
        )

    async def engines(self) -> Sequence[Engine]:
        return await self._keys.engines()

    async def stats(
        self,
        *,
        ca_query: ListQuery | None = None,
        certificate_query: ListQuery | None = None,
        issuer_ca_id: str | None = None,
    ) -> CaStats:
        return await self._store.stats(
            now=self._clock.now(),
            ca_query=ca_query,
            certificate_query=certificate_query,
            issuer_ca_id=issuer_ca_id,
        )

    # --- jobs ------------------------------------------------------------------------------

    async def fold_counts(self) -> int:
        """Add up what changed since the last time, so that counts stay quick to read."""
        return await self._store.fold_counts()

    async def run_jobs(self) -> int:
        """Finish what revoked CAs left to do; how many certificates that revoked.

        Safe to run at any time and in several processes; call it periodically, and whenever
        `jobs_pending` is set.
        """
        self.jobs_pending.clear()
        return await self._cascades.run()

    async def find_job(self, job_id: str) -> CascadeJob | None:
        return await self._store.find_job(job_id)

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
        """Pass the word to the VA; a VA that is missing or fails has not shown it yet."""
        if self.revocations is None:
            return False
        try:
            return await self.revocations.revocation_changed(ca_id, wait=wait)
        except LamassuError:
            return False  # the commit stands; events make the VA catch up
