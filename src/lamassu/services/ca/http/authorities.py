"""Routes of CAs."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.errors import NotFound
from lamassu.kernel.listing import Page
from lamassu.kernel.wire_text import format_time
from lamassu.platform.http import Access, Call, Route, json_answer, page_answer
from lamassu.platform.http.wire import JsonPatches
from lamassu.services.ca.contract import CertificateStatus, IssueRequest
from lamassu.services.ca.http.answers import (
    CaAnswer,
    CertificateAnswer,
    EngineAnswer,
    KeyMoveAnswer,
    KeySpecAnswer,
    PageAnswer,
    RekeyPlanAnswer,
    SignedDataAnswer,
    ValidAnswer,
)
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.bodies import (
    CreateCaBody,
    MoveKeyBody,
    ProfileIdBody,
    RekeyBody,
    SignCsrBody,
    SignMessageBody,
    StatusBody,
    VerifyMessageBody,
    inline_profile,
)
from lamassu.services.ca.http.encoding import (
    CAS,
    CERTIFICATES,
    Encoder,
    awaited_answer,
    progress_headers,
)
from lamassu.services.ca.model import CertificateScope, RekeyPlan
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.contract import engine_document

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
            path="/v1/engines",
            access=_READ,
            handler=handlers.engines,
            summary="List the crypto engines that can hold a CA's key",
            answer=EngineAnswer,
        ),
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
        Route(
            method="POST",
            path=f"{one}/key/move",
            access=Access.action("ca-key:move", scope="id"),
            handler=handlers.move_key,
            summary="Move a CA's key into another crypto engine",
            description="For engines that give keys out and take them in; the CA works all the "
            "while, and a move that was cut off goes on when it is asked for again. With dry_run "
            "nothing is changed. 202 with what waits where approvers have to agree.",
            body=MoveKeyBody,
            deferrable=True,
            answer=KeyMoveAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/rekey",
            access=Access.action("ca:rekey", scope="id"),
            handler=handlers.rekey,
            summary="Give a CA a new key",
            description="Makes the CA's next generation: the same subject with a new key, under "
            "which whatever names the CA issues from then on, and certificates by which the old "
            "and the new key vouch for each other. The old generation answers for what it issued. "
            "With dry_run it is only said what would be made. 202 with what waits where "
            "approvers have to agree.",
            body=RekeyBody,
            empty_body=True,
            deferrable=True,
            answer=CaAnswer,
            status=201,
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
        ),
        Route(
            method="POST",
            path=f"{one}/signature/sign",
            access=Access.action("ca-key:sign", scope="id"),
            handler=handlers.sign_message,
            summary="Sign a message with a CA's key",
            description="Only raw messages that could not be a certificate or CRL; a digest "
            "(message_type hash) is refused.",
            body=SignMessageBody,
            answer=SignedDataAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/signature/verify",
            access=_READ_ONE,
            handler=handlers.verify_message,
            summary="Verify a signature of a CA's key",
            body=VerifyMessageBody,
            answer=ValidAnswer,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def engines(self, call: Call) -> Response:
        engines = await self._service.engines()
        return json_answer([EngineAnswer.model_validate(engine_document(e)) for e in engines])

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

    async def move_key(self, call: Call) -> Response:
        body = call.decoded(MoveKeyBody)
        moving = self._service.key_moving
        if body.dry_run:
            plan = await moving.plan(call.path["id"], body.engine_id)
            return json_answer(_move(plan.key_id, plan.source, plan.target, plan.step.value))
        before = await self._service.get_ca(call.path["id"])
        moved = await moving.move(
            before.id, body.engine_id, caller=call.caller, demand=demand_of(call)
        )
        source = before.certificate.engine_id
        return json_answer(_move(moved.key_id, source, moved.certificate.engine_id, "DONE"))

    async def rekey(self, call: Call) -> Response:
        body = call.decoded(RekeyBody)
        if body.dry_run:
            plan = await self._service.plan_rekey(call.path["id"], body.value())
            return json_answer(_rekey_plan(plan))
        authority = await self._service.rekey_ca(
            call.path["id"], body.value(), caller=call.caller, demand=demand_of(call)
        )
        return json_answer(Encoder(self._service).ca(authority), status=201)

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

    async def sign_message(self, call: Call) -> Response:
        body = call.decoded(SignMessageBody)
        signature = await self._service.sign(
            call.path["id"],
            algorithm=body.signature_algorithm,
            message=body.message,
            message_type=body.message_type,
            caller=call.caller,
        )
        return json_answer(SignedDataAnswer(signed_data=signature))

    async def verify_message(self, call: Call) -> Response:
        body = call.decoded(VerifyMessageBody)
        valid = await self._service.verify(
            call.path["id"],
            algorithm=body.signature_algorithm,
            message=body.message,
            message_type=body.message_type,
            signature=body.signature,
        )
        return json_answer(ValidAnswer(valid=valid))


def _move(key_id: str, source: str, target: str, step: str) -> KeyMoveAnswer:
    return KeyMoveAnswer(key_id=key_id, source=source, target=target, step=step)


def _rekey_plan(plan: RekeyPlan) -> RekeyPlanAnswer:
    return RekeyPlanAnswer(
        old_id=plan.old_id,
        new_id=plan.new_id,
        engine_id=plan.engine_id,
        key_metadata=KeySpecAnswer(type=plan.spec.algorithm.value, bits=plan.spec.size),
        signed_by=plan.signed_by,
        valid_to=format_time(plan.not_after),
        cross_certificates_valid_to=format_time(plan.cross_until),
    )


def known_status(text: str) -> CertificateStatus | None:
    """The status of this name; an unknown one has no certificates, as in the original."""
    return next((status for status in CertificateStatus if status.value == text), None)
