"""Routes of CAs."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.errors import NotFound
from lamassu.kernel.listing import Page
from lamassu.platform.http import Access, Call, Creation, Route, json_answer, page_answer
from lamassu.platform.http.wire import JsonPatches
from lamassu.services.ca.contract import CertificateStatus, IssueRequest
from lamassu.services.ca.http.answers import (
    AwaitedCaAnswer,
    CaAnswer,
    CertificateAnswer,
    PageAnswer,
)
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.bodies import (
    CreateCaBody,
    ProfileIdBody,
    SignCsrBody,
    StatusBody,
)
from lamassu.services.ca.http.encoding import (
    CAS,
    CERTIFICATES,
    PROGRESS_HEADERS,
    Encoder,
    awaited_answer,
    progress_headers,
)
from lamassu.services.ca.http.profile_bodies import inline_profile
from lamassu.services.ca.model import CertificateScope
from lamassu.services.ca.usecases import CaService

_READ = Access.action("ca:read")
_READ_ONE = Access.action("ca:read", scope="id")


def authority_routes(service: CaService) -> list[Route]:
    """CAs themselves."""
    handlers = _Handlers(service)
    one = "/v1/cas/{id}"
    patching = [
        Route(
            method=method,
            path=f"{one}/metadata",
            access=Access.action("ca:update", scope="id"),
            handler=handlers.patch_metadata,
            summary="Patch a CA's metadata",
            body=JsonPatches,
            answer=CaAnswer,
        )
        for method in ("PUT", "PATCH")
    ]
    return [
        Route(
            method="GET",
            path="/v1/cas",
            access=_READ,
            handler=handlers.list,
            summary="List CAs",
            answer=PageAnswer[CaAnswer],
            listing=CAS,
        ),
        Route(
            method="POST",
            path="/v1/cas",
            access=Access.action("ca:create"),
            handler=handlers.create,
            summary="Make a CA",
            description="Without a parent, named by parent_id or by the CA's own profile, it "
            "is a root (level 0). 202 with what waits where the parent's approvers have to agree. "
            "With external_root, the id of a root whose key is offline, key and CSR are made, and "
            "the CA comes into being with import-signed.",
            body=CreateCaBody,
            deferrable=True,
            answer=CaAnswer,
            status=201,
            creates=[
                Creation("ca.create", CaAnswer),
                Creation("ca.request.create", AwaitedCaAnswer),
            ],
        ),
        Route(
            method="GET",
            path="/v1/cas/cn/{cn}",
            access=_READ,
            handler=handlers.list_by_common_name,
            summary="List the CAs of this very common name",
            answer=PageAnswer[CaAnswer],
            listing=CAS,
        ),
        Route(
            method="GET",
            path=one,
            access=_READ_ONE,
            handler=handlers.get,
            summary="Get a CA",
            answer=CaAnswer,
        ),
        *patching,
        Route(
            method="POST",
            path=f"{one}/status",
            access=Access.action("ca:revoke", scope="id"),
            handler=handlers.change_status,
            summary="Revoke, hold, release or deactivate a CA",
            description="Revoking a CA revokes all below it at once; the header Lamassu-Job "
            "names the job that writes this down for the certificates that they issued. 202 "
            "with what waits where approvers have to agree.",
            body=StatusBody,
            deferrable=True,
            headers=PROGRESS_HEADERS,
            answer=CaAnswer,
            status=201,
        ),
        Route(
            method="POST",
            path=f"{one}/profile",
            access=Access.action("ca:update", scope="id"),
            handler=handlers.change_profile,
            summary="Set the default profile of what a CA issues",
            description="202 with what waits where approvers have to agree.",
            body=ProfileIdBody,
            deferrable=True,
            answer=CaAnswer,
        ),
        *_issuing_routes(handlers, one),
    ]


def _issuing_routes(handlers: _Handlers, one: str) -> list[Route]:
    """What a CA issued and signs."""
    certificates = Access.action("certificate:read", scope="id")
    return [
        Route(
            method="GET",
            path=f"{one}/certificates",
            access=certificates,
            handler=handlers.list_certificates,
            summary="List what a CA issued",
            answer=PageAnswer[CertificateAnswer],
            listing=CERTIFICATES,
        ),
        Route(
            method="GET",
            path=f"{one}/certificates/status/{{status}}",
            access=certificates,
            handler=handlers.list_certificates_by_status,
            summary="List what a CA issued, by status",
            answer=PageAnswer[CertificateAnswer],
            listing=CERTIFICATES,
        ),
        Route(
            method="GET",
            path=f"{one}/certificates/{{sn}}",
            access=certificates,
            handler=handlers.get_certificate,
            summary="Get a certificate that a CA issued",
            answer=CertificateAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/certificates/sign",
            access=Access.action("certificate:issue", scope="id"),
            handler=handlers.sign_csr,
            summary="Certify a CSR",
            description="Under the profile in the body, else the one named, else the CA's "
            "default. The CSR's own signature is always verified.",
            body=SignCsrBody,
            answer=CertificateAnswer,
            status=201,
            creates=[Creation("ca.sign.certificate", CertificateAnswer)],
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def list(self, call: Call) -> Response:
        page = await self._service.page_cas(call.listing)
        return page_answer(call, page, Encoder(self._service).ca)

    async def list_by_common_name(self, call: Call) -> Response:
        page = await self._service.page_cas(call.listing, common_name=call.path["cn"])
        return page_answer(call, page, Encoder(self._service).ca)

    async def create(self, call: Call) -> Response:
        body = call.decoded(CreateCaBody)
        request = body.value()
        if body.external_root:
            awaited = await self._service.request_certificate(
                request, body.external_root, caller=call.caller, demand=demand_of(call)
            )
            return json_answer(awaited_answer(awaited), status=201)
        authority = await self._service.create_ca(
            request, caller=call.caller, demand=demand_of(call)
        )
        return json_answer(Encoder(self._service).ca(authority), status=201)

    async def get(self, call: Call) -> Response:
        authority = await self._service.get_ca(call.path["id"])
        return json_answer(Encoder(self._service).ca(authority))

    async def patch_metadata(self, call: Call) -> Response:
        patches = call.decoded(JsonPatches).operations
        authority = await self._service.patch_ca_metadata(
            call.path["id"], patches, caller=call.caller
        )
        return json_answer(Encoder(self._service).ca(authority))

    async def change_status(self, call: Call) -> Response:
        outcome = await self._service.change_ca_status(
            call.path["id"],
            call.decoded(StatusBody).value(),
            caller=call.caller,
            demand=demand_of(call),
        )
        return json_answer(
            Encoder(self._service).ca(outcome.authority),
            status=201,
            headers=progress_headers(
                shown=outcome.shown,
                job_id=outcome.job_id,
                ceremony=await self._service.ceremony_of(outcome.authority.certificate),
            ),
        )

    async def change_profile(self, call: Call) -> Response:
        authority = await self._service.change_ca_profile(
            call.path["id"],
            call.decoded(ProfileIdBody).profile_id,
            caller=call.caller,
            demand=demand_of(call),
        )
        return json_answer(Encoder(self._service).ca(authority))

    async def list_certificates(self, call: Call) -> Response:
        ca = await self._service.get_ca(call.path["id"])
        page = await self._service.page_certificates(
            call.listing, CertificateScope(issuer_ca_id=ca.id)
        )
        return page_answer(call, page, Encoder(self._service).certificate)

    async def list_certificates_by_status(self, call: Call) -> Response:
        status = known_status(call.path["status"])
        if status is None:
            return page_answer(call, Page([]), Encoder(self._service).certificate)
        page = await self._service.page_certificates(
            call.listing, CertificateScope(issuer_ca_id=call.path["id"], status=status)
        )
        return page_answer(call, page, Encoder(self._service).certificate)

    async def get_certificate(self, call: Call) -> Response:
        certificate = await self._service.get_certificate(call.path["sn"])
        if certificate.issuer_ca_id != call.path["id"]:
            raise NotFound("certificate not found", code="certificate_not_found")
        return json_answer(Encoder(self._service).certificate(certificate))

    async def sign_csr(self, call: Call) -> Response:
        body = call.decoded(SignCsrBody)
        issued = await self._service.issue(
            IssueRequest(
                ca_id=call.path["id"],
                csr_der=body.csr,
                caller=call.caller,
                profile=inline_profile(body.profile),
                profile_id=body.profile_id or None,
            )
        )
        return json_answer(Encoder(self._service).certificate(issued.certificate), status=201)


def known_status(text: str) -> CertificateStatus | None:
    """The status of this name; an unknown one has no certificates, as in the original."""
    return next((status for status in CertificateStatus if status.value == text), None)
