"""Take over what a source has: judged and stored by the services, in pages, as often as need be.

Nothing remembers how far a run came. What is here already is found there the next time, so a
run that was killed is simply repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

from lamassu.kernel.adoption import Batch, Outcome, Verdict
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ca.contract import Certificate, IssuanceProfile
from lamassu.services.ca.rules.adoption import IssuerTable, in_hierarchy, subject_key_id_of
from lamassu.services.devices.usecases.adopt_devices import FoundDevice
from lamassu.services.dms.usecases.adopt_dms import Promised
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases.adopt_keys import Adopting
from lamassu.services.kms.usecases.describe_key import renamed, retagged
from lamassu.services.va.usecases.adopt_role import FoundRole
from lamassu.wiring.importing.keys import with_key
from lamassu.wiring.importing.material import (
    Damaged,
    FoundKey,
    Installation,
    Source,
    SourceAuthority,
)
from lamassu.wiring.importing.report import Report
from lamassu.wiring.platform import Platform

T = TypeVar("T")

CALLER = system_caller("lamassu import")
PATIENCE = timedelta(seconds=60)  # for a CA's first CRL here

Progress = Callable[[str, int, int | None], None]
"""Told of a kind, how many of it are done, and of how many, if that is known."""


def _silent(kind: str, done: int, total: int | None) -> None:
    """Nobody looks."""


@dataclass
class Import:
    """One run. `report` says what became of everything."""

    platform: Platform
    source: Source
    report: Report
    installation: Installation | None = None
    progress: Progress = _silent
    caller: Caller = CALLER
    _cas: list[str] = field(default_factory=list)
    _profiles: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        return self.report.dry_run

    async def run(self) -> Report:
        """Everything that the source has. Raises a `LamassuError` where it, the database or an
        engine fails: then nothing is lost by repeating the command."""
        installation = self.installation
        if installation is not None:
            await self._take_profiles(installation)
        issuers = await self._take_authorities()
        if installation is not None:
            await self._take_keys(installation)
        await self._take_certificates(issuers)
        if installation is not None:
            await self._take_dms(installation)
            await self._take_devices(installation, issuers)
            await self._take_events(installation)
        if not self.dry_run:
            await self._show_revocations()
        return self.report

    # --- CAs ------------------------------------------------------------------------------

    async def _take_authorities(self) -> IssuerTable:
        issuers = await self.platform.ca.certificate_adoption.issuers()
        sources: dict[str, SourceAuthority] = {}
        for one in await self.source.authorities():
            if isinstance(one, Damaged):
                self._refuse("ca", one)
            elif one.found.id in sources:
                again = Damaged(one.found.id, "ca_exists", "another CA there has its id")
                self._refuse("ca", again)
            else:
                sources[one.found.id] = one
        ordered = in_hierarchy([one.found for one in sources.values()])
        for done, found in enumerate(ordered, start=1):
            await self._take_authority(sources[found.id], issuers)
            self.progress("ca", done, len(ordered))
        return issuers

    async def _take_authority(self, authority: SourceAuthority, issuers: IssuerTable) -> None:
        found, problem = await with_key(
            self.platform, authority, caller=self.caller, dry_run=self.dry_run
        )
        if found.key_id:
            # before the CA is here: else its first CRL would be number 1
            await self._take_role(authority)
        verdict = await self.platform.ca.authority_adoption.adopt(
            found,
            issuers=issuers,
            source=self.source.name,
            caller=self.caller,
            dry_run=self.dry_run,
            promised_profiles=self._profiles,
        )
        if problem and not verdict.code:
            verdict = replace(verdict, code="key_not_adopted", text=problem)
        self.report.note("ca", verdict, revoked=authority.found.status.revoked)
        if verdict.outcome is not Outcome.SKIPPED:
            self._cas.append(found.id)

    async def _take_role(self, authority: SourceAuthority) -> None:
        facts = certificate_facts(authority.found.der)
        verdict = await self.platform.va.adopt_role(
            FoundRole(
                ca_id=authority.found.id,
                ca_ski=subject_key_id_of(facts),
                last_number=authority.last_crl_number,
                change=authority.role,
            ),
            caller=self.caller,
            dry_run=self.dry_run,
        )
        self.report.note("crl", verdict)

    async def _show_revocations(self) -> None:
        """OCSP reads the rows; the CRLs have to be made anew."""
        for done, ca_id in enumerate(self._cas, start=1):
            with suppress(NotFound):
                authority = await self.platform.ca.get_ca(ca_id)
                if authority.key_id and not await self.platform.va.revocation_changed(
                    ca_id, wait=PATIENCE
                ):
                    text = "its CRL was not made in time: the server makes it"
                    self.report.note("crl", Verdict(ca_id, Outcome.PRESENT, "crl_pending", text))
            self.progress("crl", done, len(self._cas))

    # --- certificates ---------------------------------------------------------------------

    async def _take_certificates(self, issuers: IssuerTable) -> None:
        total = await self.source.count_certificates()
        done = 0
        async for number, page in _numbered(self.source.certificates()):
            found = [one for one in page if not isinstance(one, Damaged)]
            for one in page:
                if isinstance(one, Damaged):
                    self._refuse("certificate", one)
            verdicts = await self.platform.ca.certificate_adoption.adopt(
                self._batch(number), found, issuers=issuers, caller=self.caller
            )
            for certificate, verdict in zip(found, verdicts, strict=True):
                self.report.note("certificate", verdict, revoked=certificate.status.revoked)
            done += len(page)
            self.progress("certificate", done, total)

    def _batch(self, number: int) -> Batch:
        return Batch(self.source.name, number, self.dry_run)

    def _refuse(self, kind: str, one: Damaged) -> None:
        verdict = Verdict(one.label, Outcome.SKIPPED, one.code, one.text)
        self.report.note(kind, verdict, revoked=one.revoked)

    # --- another installation's -----------------------------------------------------------

    async def _take_profiles(self, installation: Installation) -> None:
        for one in await installation.profiles():
            if isinstance(one, Damaged):
                self._refuse("profile", one)
                continue
            verdict = Verdict(one.id, Outcome.ADOPTED)
            try:
                await self.platform.ca.get_profile(one.id)
                verdict = Verdict(one.id, Outcome.PRESENT)
            except NotFound:
                if not self.dry_run:
                    verdict = await self._create_profile(one)
            self.report.note("profile", verdict)
            if verdict.outcome is not Outcome.SKIPPED:
                self._profiles.append(one.id)

    async def _create_profile(self, profile: IssuanceProfile) -> Verdict:
        try:
            await self.platform.ca.create_profile(profile, caller=self.caller)
        except (RuleViolation, Conflict, NotFound) as error:
            text = f"{error.text} ({error.field})" if error.field else error.text
            return Verdict(profile.id, Outcome.SKIPPED, error.code, text)
        return Verdict(profile.id, Outcome.ADOPTED)

    async def _take_keys(self, installation: Installation) -> None:
        """Keys that no CA has. Those of CAs came with them."""
        by_engine: dict[str, list[FoundKey]] = {}
        for key in await installation.keys():
            if await self.platform.kms.find(key.key_id) is not None:
                self.report.note("key", Verdict(key.key_id, Outcome.PRESENT))
            else:
                by_engine.setdefault(key.engine_id, []).append(key)
        for engine_id, keys in by_engine.items():
            for verdict in await self._take_keys_of(engine_id, keys):
                self.report.note("key", verdict)

    async def _take_keys_of(self, engine_id: str, keys: Sequence[FoundKey]) -> Sequence[Verdict]:
        """The engine says once what it has; what it lists is taken over at once."""
        look = Adopting(engine_id or None, KeyPurpose.GENERAL, dry_run=True)
        try:
            listed = await self.platform.kms.adopt(look, caller=self.caller)
            here = {one.found.key_id: one.problem for one in listed}
            sound = [key.key_id for key in keys if here.get(key.key_id) == ""]
            if sound and not self.dry_run:
                take = replace(look, dry_run=False, key_ids=sound)
                adopted = await self.platform.kms.adopt(take, caller=self.caller)
                here |= {one.found.key_id: one.problem for one in adopted}
        except RuleViolation as error:
            return [Verdict(key.key_id, Outcome.SKIPPED, error.code, error.text) for key in keys]
        verdicts = []
        for key in keys:
            problem = here.get(key.key_id, f"engine {engine_id} has no such key")
            if problem:
                verdicts.append(Verdict(key.key_id, Outcome.SKIPPED, "key_lost", problem))
                continue
            if not self.dry_run:
                await self._describe(key)
            verdicts.append(Verdict(key.key_id, Outcome.ADOPTED))
        return verdicts

    async def _describe(self, key: FoundKey) -> None:
        describe = self.platform.kms.describe_named
        if key.name:
            await describe(key.key_id, "kms.name.update", renamed(key.name), caller=self.caller)
        if key.tags:
            await describe(key.key_id, "kms.tags.update", retagged(key.tags), caller=self.caller)

    async def _take_dms(self, installation: Installation) -> None:
        promised = Promised(self._cas, self._profiles) if self.dry_run else Promised()
        for one in await installation.dms():
            if isinstance(one, Damaged):
                self._refuse("dms", one)
                continue
            verdict = await self.platform.dms.adopt(
                one.draft,
                created_at=one.created_at,
                caller=self.caller,
                dry_run=self.dry_run,
                promised=promised,
            )
            self.report.note("dms", verdict)

    async def _take_devices(self, installation: Installation, issuers: IssuerTable) -> None:
        total = await installation.count_devices()
        done = 0
        async for number, page in _numbered(installation.devices()):
            found = [one for one in page if not isinstance(one, Damaged)]
            for one in page:
                if isinstance(one, Damaged):
                    self._refuse("device", one)
            promised = await self._promised(installation, found, issuers)
            verdicts = await self.platform.devices.adoption.adopt(
                self._batch(number), found, caller=self.caller, promised=promised
            )
            for verdict in verdicts:
                self.report.note("device", verdict)
            done += len(page)
            self.progress("device", done, total)

    async def _promised(
        self, installation: Installation, found: Sequence[FoundDevice], issuers: IssuerTable
    ) -> dict[str, Certificate]:
        if not self.dry_run:
            return {}
        serial_numbers = [
            version.serial_number
            for one in found
            if one.slot is not None
            for version in one.slot.versions.values()
        ]
        certificates = await installation.certificates_by_serial(serial_numbers)
        adoption = self.platform.ca.certificate_adoption
        return dict(adoption.preview(certificates, issuers=issuers))

    async def _take_events(self, installation: Installation) -> None:
        events = await installation.events()
        for verdict in await self.platform.alerts.adopt(
            events, source=installation.name, caller=self.caller, dry_run=self.dry_run
        ):
            self.report.note("event", verdict)
        for one in await installation.left_behind():
            self._refuse("other", one)


async def _numbered(pages: AsyncIterator[T]) -> AsyncIterator[tuple[int, T]]:
    number = 0
    async for page in pages:
        number += 1
        yield number, page
