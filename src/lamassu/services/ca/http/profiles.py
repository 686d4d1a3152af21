"""Routes of issuance profiles, under the original's name and the seed's."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from lamassu.platform.http import (
    Access,
    Call,
    Creation,
    Route,
    empty_answer,
    json_answer,
    page_answer,
)
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.http.answers import FindingsAnswer, PageAnswer, ProfileAnswer
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.encoding import PROFILES, findings_answer, profile_answer
from lamassu.services.ca.http.profile_bodies import ProfileBody
from lamassu.services.ca.usecases import CaService


def profile_routes(service: CaService) -> list[Route]:
    """Each route twice."""
    handlers = _Handlers(service)
    return [
        route
        for base in ("/v1/profiles", "/v1/issuanceprofiles")
        for route in _routes_at(base, handlers)
    ]


def _routes_at(base: str, handlers: _Handlers) -> list[Route]:
    return [
        Route(
            method="GET",
            path=base,
            access=Access.action("profile:read"),
            handler=handlers.list,
            summary="List issuance profiles",
            answer=PageAnswer[ProfileAnswer],
            listing=PROFILES,
        ),
        Route(
            method="POST",
            path=base,
            access=Access.action("profile:create"),
            handler=handlers.create,
            summary="Create an issuance profile",
            body=ProfileBody,
            answer=ProfileAnswer,
            status=201,
            creates=[
                Creation("profile.issuance.create", ProfileAnswer, completed=handlers.with_warnings)
            ],
        ),
        Route(
            method="GET",
            path=f"{base}/{{id}}",
            access=Access.action("profile:read", scope="id"),
            handler=handlers.get,
            summary="Get an issuance profile",
            answer=ProfileAnswer,
        ),
        Route(
            method="PUT",
            path=f"{base}/{{id}}",
            access=Access.action("profile:update", scope="id"),
            handler=handlers.update,
            summary="Replace an issuance profile",
            description="202 with what waits where it would allow more and approvers of a CA "
            "that uses it have to agree.",
            body=ProfileBody,
            deferrable=True,
            answer=ProfileAnswer,
        ),
        Route(
            method="GET",
            path=f"{base}/{{id}}/findings",
            access=Access.action("profile:read", scope="id"),
            handler=handlers.findings,
            summary="What should be known of an issuance profile",
            description="Nothing of it forbids anything: names that anybody may choose, CAs that "
            "end too soon, and the like.",
            answer=FindingsAnswer,
        ),
        Route(
            method="DELETE",
            path=f"{base}/{{id}}",
            access=Access.action("profile:delete", scope="id"),
            handler=handlers.delete,
            summary="Delete an issuance profile that no CA uses",
            status=204,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def list(self, call: Call) -> Response:
        return page_answer(call, await self._service.page_profiles(call.listing), profile_answer)

    async def create(self, call: Call) -> Response:
        profile = call.decoded(ProfileBody).value()
        created = await self._service.create_profile(profile, caller=call.caller)
        return json_answer(await self._written(created), status=201)

    async def get(self, call: Call) -> Response:
        return json_answer(profile_answer(await self._service.get_profile(call.path["id"])))

    async def update(self, call: Call) -> Response:
        # the path names the profile, whatever id the body repeats
        body = call.decoded(ProfileBody)
        profile = replace(body.value(), id=call.path["id"])
        updated = await self._service.update_profile(
            profile, kept=body.unsaid(), caller=call.caller, demand=demand_of(call)
        )
        return json_answer(await self._written(updated))

    async def _written(self, profile: IssuanceProfile) -> ProfileAnswer:
        return await self.with_warnings(profile_answer(profile))

    async def with_warnings(self, written: ProfileAnswer) -> ProfileAnswer:
        """The profile, and what should be known of it."""
        found = await self._service.profile_findings(await self._service.get_profile(written.id))
        return written.model_copy(update={"warnings": findings_answer(found)}) if found else written

    async def findings(self, call: Call) -> Response:
        profile = await self._service.get_profile(call.path["id"])
        found = await self._service.profile_findings(profile)
        return json_answer(FindingsAnswer(findings=findings_answer(found)))

    async def delete(self, call: Call) -> Response:
        await self._service.delete_profile(call.path["id"], caller=call.caller)
        return empty_answer(204)
