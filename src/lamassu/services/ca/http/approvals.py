"""Routes of approvals: what waits, and the word of those who have to agree."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.platform.http import Access, Call, Route, json_answer, page_answer
from lamassu.services.ca.contract import Approval, Demand, Verdict, approval_document
from lamassu.services.ca.http.answers import ApprovalAnswer, CaAnswer, PageAnswer
from lamassu.services.ca.http.bodies import ApprovalPolicyBody, VoteBody
from lamassu.services.ca.http.encoding import APPROVALS, Encoder
from lamassu.services.ca.rules.approvals import APPROVAL_HEADER
from lamassu.services.ca.usecases import CaService

_HEADER = APPROVAL_HEADER.lower()


def demand_of(call: Call) -> Demand:
    """A request as approvals are bound to it, with the approval that its header names."""
    return Demand(call.caller, call.document, call.headers.get(_HEADER, "").strip())


def approval_routes(service: CaService) -> list[Route]:
    """Approvals, and the policies that ask for them."""
    handlers = _Handlers(service)
    one = "/v1/approvals/{id}"
    votes = [
        Route(
            method="POST",
            path=f"{one}/{word}",
            access=Access.action("approval:vote", scope="id"),
            handler=handler,
            summary=summary,
            description=description,
            body=VoteBody,
            empty_body=True,
            answer=ApprovalAnswer,
        )
        for word, handler, summary, description in (
            (
                "approve",
                handlers.approve,
                "Approve a request",
                "Never one's own. With enough approvals the requester repeats the very same "
                f"request with the header {APPROVAL_HEADER}, which uses the approval up.",
            ),
            (
                "reject",
                handlers.reject,
                "Reject a request, or withdraw one's own",
                "One rejection ends it.",
            ),
        )
    ]
    return [
        Route(
            method="GET",
            path="/v1/approvals",
            access=Access.action("approval:read"),
            handler=handlers.list,
            summary="List requests that wait or waited for approval",
            answer=PageAnswer[ApprovalAnswer],
            listing=APPROVALS,
        ),
        Route(
            method="GET",
            path=one,
            access=Access.action("approval:read", scope="id"),
            handler=handlers.get,
            summary="Get a request that waits or waited for approval",
            answer=ApprovalAnswer,
        ),
        *votes,
        Route(
            method="PUT",
            path="/v1/cas/{id}/approvals",
            access=Access.action("ca:update", scope="id"),
            handler=handlers.change_policy,
            summary="Set who has to agree to what is dangerous for a CA",
            description="By the rule that stands until then: 202 where that asks for approvals. "
            "`required` 0 of nobody ends it.",
            body=ApprovalPolicyBody,
            deferrable=True,
            answer=CaAnswer,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def list(self, call: Call) -> Response:
        page = await self._service.approvals.page(call.listing)
        return page_answer(call, page, self._encoded)

    async def get(self, call: Call) -> Response:
        return json_answer(self._encoded(await self._service.approvals.get(call.path["id"])))

    async def approve(self, call: Call) -> Response:
        return await self._vote(call, Verdict.APPROVE)

    async def reject(self, call: Call) -> Response:
        return await self._vote(call, Verdict.REJECT)

    async def change_policy(self, call: Call) -> Response:
        authority = await self._service.change_ca_approvals(
            call.path["id"],
            call.decoded(ApprovalPolicyBody).value(),
            caller=call.caller,
            demand=demand_of(call),
        )
        return json_answer(Encoder(self._service).ca(authority))

    async def _vote(self, call: Call, verdict: Verdict) -> Response:
        approval = await self._service.approvals.vote(
            call.path["id"],
            verdict,
            comment=call.decoded(VoteBody).comment,
            caller=call.caller,
        )
        return json_answer(self._encoded(approval))

    def _encoded(self, approval: Approval) -> ApprovalAnswer:
        return ApprovalAnswer.model_validate(approval_document(approval, self._service.now()))
