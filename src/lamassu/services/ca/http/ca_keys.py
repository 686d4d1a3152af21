"""Routes of CAs' keys: the engines that hold them, what they sign, and their change."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.wire_text import format_time
from lamassu.platform.http import Access, Call, Creation, Route, json_answer
from lamassu.services.ca.http.answers import (
    CaAnswer,
    KeySpecAnswer,
    RekeyPlanAnswer,
    SignedDataAnswer,
    ValidAnswer,
)
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.bodies import RekeyBody, SignMessageBody, VerifyMessageBody
from lamassu.services.ca.http.encoding import Encoder
from lamassu.services.ca.model import RekeyPlan
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.wire import EngineAnswer, EnginesAnswer, KeyMoveAnswer, MoveKey


def ca_key_routes(service: CaService) -> list[Route]:
    """Keys of CAs."""
    handlers = _Handlers(service)
    one = "/v1/cas/{id}"
    return [
        Route(
            method="GET",
            path="/v1/engines",
            access=Access.action("ca:read"),
            handler=handlers.engines,
            summary="List the crypto engines that can hold a CA's key",
            answer=EnginesAnswer,
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
            body=MoveKey,
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
            creates=[Creation("ca.create", CaAnswer)],
            other_statuses={200: "With dry_run: what would be made"},
            other_answers={200: RekeyPlanAnswer},
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
            access=Access.action("ca:read", scope="id"),
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
        return json_answer([EngineAnswer.of(e) for e in engines])

    async def move_key(self, call: Call) -> Response:
        body = call.decoded(MoveKey)
        moving = self._service.key_moving
        if body.dry_run:
            plan = await moving.plan(call.path["id"], body.engine_id)
            return json_answer(KeyMoveAnswer.planned(plan))
        before = await self._service.get_ca(call.path["id"])
        moved = await moving.move(
            before.id, body.engine_id, caller=call.caller, demand=demand_of(call)
        )
        return json_answer(
            KeyMoveAnswer.done(
                moved.key_id,
                source=before.certificate.engine_id,
                target=moved.certificate.engine_id,
            )
        )

    async def rekey(self, call: Call) -> Response:
        body = call.decoded(RekeyBody)
        if body.dry_run:
            plan = await self._service.plan_rekey(call.path["id"], body.value())
            return json_answer(_rekey_plan(plan))
        authority = await self._service.rekey_ca(
            call.path["id"], body.value(), caller=call.caller, demand=demand_of(call)
        )
        return json_answer(Encoder(self._service).ca(authority), status=201)

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
