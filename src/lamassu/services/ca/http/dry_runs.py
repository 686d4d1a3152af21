"""Routes that show what a profile would do: nothing is signed or stored."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from lamassu.kernel.wire_text import format_time
from lamassu.platform.http import Access, Call, Route, WireModel, json_answer
from lamassu.platform.http.wire import WireCsr
from lamassu.services.ca.http.answers import Answer, KeySpecAnswer
from lamassu.services.ca.http.bodies import MISSING
from lamassu.services.ca.http.profile_bodies import ProfileBody
from lamassu.services.ca.usecases import CaService
from lamassu.services.ca.usecases.preview_certificate import Preview, PreviewRequest
from lamassu.services.ca.usecases.replay_enrolments import MOST_AT_ONCE, WhatIfPage


class PreviewBody(WireModel):
    """A CSR, and under what it would be certified: the stored profile or `profile` in its
    place, by the CA or the only one that uses it, for a device of a DMS or for nobody."""

    missing_text = MISSING

    csr: WireCsr
    ca_id: str = ""
    device_id: str = ""
    dms_id: str = ""
    profile: ProfileBody | None = None


class WhatIfBody(WireModel):
    """The changed profile, and which page: at most `limit` certificates past the serial number
    `after`, which the page before told."""

    missing_text = MISSING

    profile: ProfileBody
    after: str = Field("", max_length=64)
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 2000


class PreviewExtensionAnswer(Answer):
    """An extension: in words, and the DER inside it."""

    oid: str
    name: str
    critical: bool
    text: str
    value: str


class PreviewAnswer(Answer):
    """A certificate but for its signature; `to_be_signed` is its DER, `lint` what linters would
    refuse. Its serial number is one of many that it could get."""

    ca_id: str
    profile_id: str
    subject: str
    issuer: str
    valid_from: str
    valid_to: str
    key: KeySpecAnswer
    extensions: list[PreviewExtensionAnswer]
    to_be_signed: str
    lint: list[str]


class FailureAnswer(Answer):
    """An enrolment that the changed profile would refuse."""

    serial_number: str
    common_name: str
    ca_id: str
    dms_id: str
    device_id: str
    code: str
    field: str
    text: str


class DifferenceAnswer(Answer):
    """A part that would differ: in how many certificates, and how in the one named."""

    part: str
    certificates: int
    serial_number: str
    before: str
    after: str


class WhatIfAnswer(Answer):
    """A page of a replay; `next` is empty at the end."""

    examined: int
    failures: list[FailureAnswer]
    differing: int
    differences: list[DifferenceAnswer]
    refused_before: int
    accepted_now: int
    unreadable: int
    next: str


def dry_run_routes(service: CaService) -> list[Route]:
    """Previews and replays of profiles, under both names of these."""
    handlers = _Handlers(service)
    return [
        route
        for base in ("/v1/profiles", "/v1/issuanceprofiles")
        for route in (
            Route(
                method="POST",
                path=f"{base}/{{id}}/preview",
                access=Access.action("profile:preview", scope="id"),
                handler=handlers.preview,
                summary="Show the certificate that a CSR would get",
                description="The code that issues decides; nothing is signed or stored. What "
                "would be refused is refused alike.",
                body=PreviewBody,
                answer=PreviewAnswer,
            ),
            Route(
                method="POST",
                path=f"{base}/{{id}}/what-if",
                access=Access.action("profile:what-if", scope="id"),
                handler=handlers.what_if,
                summary="Replay what was enrolled under a profile against a changed one",
                description="A page at a time: the next one is asked for with after set to next. "
                "Each enrolment is replayed as a first one; a renewal keeps its names.",
                body=WhatIfBody,
                answer=WhatIfAnswer,
            ),
        )
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def preview(self, call: Call) -> Response:
        body = call.decoded(PreviewBody)
        shown = await self._service.previews.preview(
            PreviewRequest(
                profile_id=call.path["id"],
                csr_der=body.csr,
                ca_id=body.ca_id,
                device_id=body.device_id,
                dms_id=body.dms_id,
                changed=body.profile.value() if body.profile is not None else None,
                kept=body.profile.unsaid() if body.profile is not None else (),
            )
        )
        return json_answer(_preview_answer(shown))

    async def what_if(self, call: Call) -> Response:
        body = call.decoded(WhatIfBody)
        page = await self._service.what_if.replay(
            call.path["id"],
            body.profile.value(),
            kept=body.profile.unsaid(),
            after=body.after,
            limit=body.limit,
        )
        return json_answer(_what_if_answer(page))


def _preview_answer(shown: Preview) -> PreviewAnswer:
    return PreviewAnswer(
        ca_id=shown.ca_id,
        profile_id=shown.profile_id,
        subject=shown.subject,
        issuer=shown.issuer,
        valid_from=format_time(shown.not_before),
        valid_to=format_time(shown.not_after),
        key=KeySpecAnswer(type=shown.key.algorithm, bits=shown.key.size),
        extensions=[
            PreviewExtensionAnswer(
                oid=one.oid,
                name=one.name,
                critical=one.critical,
                text=one.text,
                value=_base64(one.value),
            )
            for one in shown.extensions
        ],
        to_be_signed=_base64(shown.to_be_signed),
        lint=list(shown.lint),
    )


def _what_if_answer(page: WhatIfPage) -> WhatIfAnswer:
    found = page.replayed
    return WhatIfAnswer(
        examined=found.examined,
        failures=[
            FailureAnswer(
                serial_number=one.enrolment.serial_number,
                common_name=one.enrolment.common_name,
                ca_id=one.enrolment.issuer_ca_id,
                dms_id=one.enrolment.owner,
                device_id=one.enrolment.device_id,
                code=one.code,
                field=one.field,
                text=one.text,
            )
            for one in found.failures
        ],
        differing=found.differing,
        differences=[
            DifferenceAnswer(
                part=one.part,
                certificates=one.certificates,
                serial_number=one.serial_number,
                before=one.before,
                after=one.after,
            )
            for one in found.differences.values()
        ],
        refused_before=found.refused_before,
        accepted_now=found.accepted_now,
        unreadable=found.unreadable,
        next=page.after,
    )


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
