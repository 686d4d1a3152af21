"""Routes of what ends and begins anew: re-issue, deletion, and the jobs that these leave."""

from __future__ import annotations

from starlette.responses import Response

from lamassu.kernel.errors import NotFound
from lamassu.kernel.wire_text import format_time, format_time_or_zero
from lamassu.platform.http import (
    Access,
    Call,
    Creation,
    Route,
    WireModel,
    empty_answer,
    json_answer,
)
from lamassu.services.ca.http.answers import Answer, CaAnswer
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.encoding import Encoder, progress_headers
from lamassu.services.ca.http.profile_bodies import ProfileBody, inline_profile
from lamassu.services.ca.model import CascadeJob, JobKind, JobStatus
from lamassu.services.ca.usecases import CaService


class ReissueBody(WireModel):
    """The profile of the next certificate, inline or by id; none keeps the present shape."""

    profile: ProfileBody | None = None
    profile_id: str = ""


class DeletedAnswer(Answer):
    """Nothing, as the original answers."""


class JobAnswer(Answer):
    """A job over a CA's certificates; `total` is 0 until it was counted. `ANNOUNCING`: all are
    written, and others are being told of each."""

    id: str
    operation: str
    state: str
    ca_ids: list[str]
    total: int
    done: int
    announced: int
    creation_ts: str
    done_at: str


def lifecycle_routes(service: CaService) -> list[Route]:
    """Re-issue, deletion, jobs."""
    handlers = _Handlers(service)
    return [
        Route(
            method="POST",
            path="/v1/cas/{id}/reissue",
            access=Access.action("ca:reissue", scope="id"),
            handler=handlers.reissue,
            summary="Make a CA's certificate anew, for the same key",
            description="Of the shape and length of the present one, or under a profile. The "
            "present one stays in force until it ends, so that chains that hold it verify. It "
            "cannot outlive the CA above. 202 with what waits where approvers have to agree.",
            body=ReissueBody,
            deferrable=True,
            answer=CaAnswer,
            creates=[Creation("ca.reissue", CaAnswer, part="updated")],
        ),
        Route(
            method="DELETE",
            path="/v1/cas/{id}",
            access=Access.action("ca:delete", scope="id"),
            handler=handlers.delete_ca,
            summary="Delete a CA that is over, and its key",
            description="One that is revoked for good, expired, or whose key never was here, and "
            "above none that still works. With cascade_delete=true, if the configuration allows "
            "it, all CAs and certificates below go too; the header Lamassu-Job names the job. "
            "202 with what waits where approvers have to agree.",
            deferrable=True,
            answer=DeletedAnswer,
        ),
        Route(
            method="DELETE",
            path="/v1/certificates/{sn}",
            access=Access.action("certificate:delete", scope="sn"),
            handler=handlers.delete_certificate,
            summary="Delete a certificate whose issuer was deleted",
            status=204,
        ),
        Route(
            method="GET",
            path="/v1/jobs/{id}",
            access=Access.action("ca:read"),
            handler=handlers.job,
            summary="See how far a job is that the header Lamassu-Job named",
            answer=JobAnswer,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def reissue(self, call: Call) -> Response:
        body = call.decoded(ReissueBody)
        authority = await self._service.reissue_ca(
            call.path["id"],
            profile=inline_profile(body.profile),
            profile_id=body.profile_id,
            caller=call.caller,
            demand=demand_of(call),
        )
        return json_answer(Encoder(self._service).ca(authority))

    async def delete_ca(self, call: Call) -> Response:
        cascade = call.argument("cascade_delete", "").lower() in ("true", "1")
        deletion = await self._service.delete_ca(
            call.path["id"], cascade=cascade, caller=call.caller, demand=demand_of(call)
        )
        return json_answer(DeletedAnswer(), headers=progress_headers(job_id=deletion.job_id))

    async def delete_certificate(self, call: Call) -> Response:
        await self._service.deletions.delete_certificate(call.path["sn"], caller=call.caller)
        return empty_answer()

    async def job(self, call: Call) -> Response:
        job = await self._service.find_job(call.path["id"])
        if job is None:
            raise NotFound("job not found", code="job_not_found")
        return json_answer(_answer(job))


_OPERATIONS = {JobKind.REVOKE: "ca.revoke", JobKind.DELETE: "ca.delete"}


def _answer(job: CascadeJob) -> JobAnswer:
    # to clients it runs as soon as it is stored
    state = JobStatus.RUNNING if job.status is JobStatus.PENDING else job.status
    return JobAnswer(
        id=job.id,
        operation=_OPERATIONS[job.kind],
        state=state.value,
        ca_ids=list(job.ca_ids),
        total=job.total or 0,
        done=job.done,
        announced=job.announced,
        creation_ts=format_time(job.created_at),
        done_at=format_time_or_zero(job.done_at),
    )
