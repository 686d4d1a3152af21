"""Judge what a client wants a DMS to be, before it is stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.services.ca.contract import Authorities
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import CertificateExtras, Dms, DmsDraft
from lamassu.services.dms.model.settings import DmsSettings, EstAuthentication
from lamassu.services.dms.rules.settings import (
    check_names,
    check_profile_for_devices,
    check_settings,
)
from lamassu.services.dms.usecases.distribute_cas import first_generation

T = TypeVar("T")


class SettingsJudge:
    """Completes drafts of DMSs and checks them against the CAs and profiles that there are."""

    def __init__(self, *, authorities: Authorities, defaults: DmsDefaults) -> None:
        self._authorities = authorities
        self._defaults = defaults

    async def judge(
        self,
        draft: DmsDraft,
        *,
        stored: Dms | None = None,
        promised_cas: Collection[str] = (),
        promised_profiles: Collection[str] = (),
    ) -> DmsSettings:
        """The settings to store. What is `promised` counts as being here, unread: the dry run
        of an import is about to bring it. Raises `RuleViolation`."""
        check_names(draft.id, draft.name)
        settings = self._completed(draft, stored)
        check_settings(settings, production=self._defaults.production)
        await self._check_cas(settings, promised_cas)
        if settings.issuance_profile_id not in promised_profiles:
            await self._check_profile(settings)
        return settings

    async def is_known(self, ca_id: str) -> bool:
        """Whether there is such a CA."""
        try:
            await self._authorities.get_ca(ca_id)
        except NotFound:
            return False
        return True

    def _completed(self, draft: DmsDraft, stored: Dms | None) -> DmsSettings:
        """With the configured defaults of the seed's spelling (decisions 17, 27)."""
        settings = draft.settings
        kept = None if stored is None or draft.seed_spelling else stored.settings
        enrollment, reenrollment = settings.enrollment, settings.reenrollment
        settings = replace(
            settings,
            enrollment=replace(
                enrollment,
                authentication=_with_extras(
                    enrollment.authentication,
                    draft.enrollment_extras,
                    kept.enrollment.authentication if kept else None,
                    single_use=draft.seed_spelling,
                ),
            ),
            reenrollment=replace(
                reenrollment,
                authentication=_with_extras(
                    reenrollment.authentication,
                    draft.reenrollment_extras,
                    kept.reenrollment.authentication if kept else None,
                    single_use=False,
                ),
            ),
            renewal_policy=settings.renewal_policy or (kept.renewal_policy if kept else None),
        )
        if not draft.seed_spelling:
            return settings
        if not settings.issuance_profile_id and settings.issuance_profile is None:
            profile_id = self._defaults.issuance_profile_id
            settings = replace(settings, issuance_profile_id=profile_id)
        if not settings.enrollment.enrollment_ca:
            enrollment_ca = self._defaults.enrollment_ca
            settings = replace(
                settings, enrollment=replace(settings.enrollment, enrollment_ca=enrollment_ca)
            )
        return settings

    async def _check_cas(self, settings: DmsSettings, promised: Collection[str]) -> None:
        enrollment, reenrollment = settings.enrollment, settings.reenrollment
        reserved = {
            await first_generation(one, self._authorities) for one in self._defaults.reserved_cas
        }
        if await first_generation(enrollment.enrollment_ca, self._authorities) in reserved:
            raise RuleViolation(
                f"{enrollment.enrollment_ca} issues bootstrap certificates: a device that it"
                " certified could let others in; name another CA",
                code="bootstrap_ca",
                field="settings.enrollment_settings.enrollment_ca",
            )
        certificates = enrollment.authentication.client_certificate
        again = reenrollment.authentication.client_certificate
        named = (
            ("enrollment_settings.enrollment_ca", (enrollment.enrollment_ca,)),
            (
                "enrollment_settings.est_rfc7030_settings.client_certificate_settings"
                ".validation_cas",
                certificates.validation_cas,
            ),
            (
                "reenrollment_settings.est_rfc7030_settings.client_certificate_settings"
                ".validation_cas",
                again.validation_cas,
            ),
            (
                "reenrollment_settings.additional_validation_cas",
                reenrollment.additional_validation_cas,
            ),
            ("ca_distribution_settings.managed_cas", settings.ca_distribution.managed_cas),
        )
        known: set[str] = {"", *promised}
        for field, ca_ids in named:
            for ca_id in ca_ids:
                if ca_id in known:
                    continue
                await self._check_ca(ca_id, field=f"settings.{field}")
                known.add(ca_id)

    async def _check_ca(self, ca_id: str, *, field: str) -> None:
        if not await self.is_known(ca_id):
            raise RuleViolation(f"CA not found: {ca_id}", code="ca_not_found", field=field)

    async def _check_profile(self, settings: DmsSettings) -> None:
        if not settings.issuance_profile_id:
            return
        field = "settings.issuance_profile_id"
        try:
            profile = await self._authorities.get_profile(settings.issuance_profile_id)
        except NotFound:
            raise RuleViolation(
                f"issuance profile not found: {settings.issuance_profile_id}",
                code="profile_not_found",
                field=field,
            ) from None
        check_profile_for_devices(profile, settings.enrollment.enrollment_ca, field=field)


def _with_extras(
    authentication: EstAuthentication,
    stated: CertificateExtras,
    kept: EstAuthentication | None,
    *,
    single_use: bool,
) -> EstAuthentication:
    """With the extras as stated, else as stored, else as a new DMS has them."""
    base = (
        kept.client_certificate
        if kept is not None
        else replace(authentication.client_certificate, single_use_bootstrap=single_use)
    )
    certificate = replace(
        authentication.client_certificate,
        require_valid_chain=_first(stated.require_valid_chain, base.require_valid_chain),
        check_revocation=_first(stated.check_revocation, base.check_revocation),
        single_use_bootstrap=_first(stated.single_use_bootstrap, base.single_use_bootstrap),
    )
    return replace(authentication, client_certificate=certificate)


def _first(stated: T | None, otherwise: T) -> T:
    return otherwise if stated is None else stated
