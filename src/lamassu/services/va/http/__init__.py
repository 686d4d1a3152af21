"""The VA's routes: OCSP, CRLs and CA certificates for everybody, roles for those who may."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import ClassVar

from pydantic import AliasChoices, Field, field_validator
from starlette.responses import Response

from lamassu.kernel.errors import LamassuError, Malformed, NotFound, TooLarge, TooMany, Unavailable
from lamassu.kernel.x509.ocsp import MOST_OCTETS, ResponseStatus, error_response
from lamassu.platform.http.answers import json_answer
from lamassu.platform.http.call import Call
from lamassu.platform.http.routing import Access, Route
from lamassu.platform.http.wire import WireDuration, WireModel, WireTimeOrZero
from lamassu.services.va import rules
from lamassu.services.va.contract import Crl
from lamassu.services.va.http.caching import NOT_MODIFIED, cacheable, etag_of, is_held
from lamassu.services.va.http.filters import filter_routes, public_filter_routes
from lamassu.services.va.http.offline import offline_routes
from lamassu.services.va.model import RoleChange, RoleState, StatusAnswer
from lamassu.services.va.usecases import VaService

OCSP_TYPE = "application/ocsp-response"
CRL_TYPE = "application/pkix-crl"
CERTIFICATE_TYPE = "application/pkix-cert"
_FOUR_THIRDS = MOST_OCTETS * 4 // 3 + 8
_LONGEST_INTERVAL_HOURS = 366 * 24
_NO_PATH = "no_such_path"


class CrlOptions(WireModel):
    """How CRLs are made, as the original shows it."""

    refresh_interval: WireDuration
    validity: WireDuration
    subject_key_id_signer: str
    regenerate_on_revoke: bool


class CrlOptionsChange(WireModel):
    """What is absent stays as it is; `crl_update_interval_hours` is the seed's word for
    `refresh_interval`."""

    leftovers: ClassVar[frozenset[str]] = frozenset()

    refresh_interval: WireDuration | None = None
    validity: WireDuration | None = None
    subject_key_id_signer: str | None = Field(default=None, max_length=128)
    regenerate_on_revoke: bool | None = None
    filter_interval: WireDuration | None = None
    crl_update_interval_hours: float | None = Field(
        default=None,
        gt=0,
        le=_LONGEST_INTERVAL_HOURS,
        validation_alias=AliasChoices("crl_update_interval_hours"),
    )

    @field_validator("crl_update_interval_hours")
    @classmethod
    def _is_a_number(cls, value: float | None) -> float | None:
        if value is not None and value != value:  # noqa: PLR0124 - NaN alone differs from itself
            raise ValueError("crl_update_interval_hours must be a number")
        return value

    def change(self) -> RoleChange:
        """Raises `Malformed` when both words for the interval are used and differ."""
        interval = self.refresh_interval
        if self.crl_update_interval_hours is not None:
            hours = timedelta(hours=self.crl_update_interval_hours)
            if interval is not None and interval != hours:
                raise Malformed(
                    "refresh_interval and crl_update_interval_hours differ",
                    code="contradictory_fields",
                    field="crl_update_interval_hours",
                )
            interval = hours
        return RoleChange(
            refresh_interval=interval,
            validity=self.validity,
            subject_key_id_signer=self.subject_key_id_signer,
            regenerate_on_revoke=self.regenerate_on_revoke,
            filter_interval=self.filter_interval,
        )


class LatestCrl(WireModel):
    """The newest CRL; `version` is its CRL number, 0 before the first."""

    version: int
    valid_from: WireTimeOrZero
    valid_until: WireTimeOrZero


class VaRole(WireModel):
    """A role, as the original shows it; `filter_interval` is ours: how often a revocation filter
    is made, 0s for never."""

    ca_ski: str
    crl_options: CrlOptions
    latest_crl: LatestCrl
    filter_interval: WireDuration


def routes(service: VaService) -> list[Route]:
    """Under `/api/va`, on HTTPS."""
    va = _Handlers(service)
    return [
        _ocsp("POST", "/ocsp", va.post_ocsp),
        _ocsp("GET", "/ocsp/{request:path}", va.get_ocsp),
        Route(
            method="GET",
            path="/crl/{ski}",
            access=Access.PUBLIC,
            handler=va.get_crl,
            summary="The CRL of a CA, by its subject key identifier",
            media_types=(CRL_TYPE,),
            other_statuses=NOT_MODIFIED,
        ),
        # the original's routes are under /v1; its SDK calls them without
        *_roles("/v1/roles/{ski}", va),
        *_roles("/roles/{ski}", va),
        *offline_routes(service),
        *filter_routes(service),
    ]


def public_routes(service: VaService) -> list[Route]:
    """At the root of the plain HTTP listener, which has no others (decision 4)."""
    va = _Handlers(service)
    return [
        _ocsp("POST", "/", va.post_ocsp),
        _ocsp("GET", "/{request:path}", va.get_ocsp_at_root),
        _ocsp("POST", "/ocsp", va.post_ocsp),
        _ocsp("GET", "/ocsp/{request:path}", va.get_ocsp),
        Route(
            method="GET",
            path="/crl/{ski}",
            access=Access.PUBLIC,
            handler=va.get_crl,
            summary="The CRL of a CA, by its subject key identifier",
            media_types=(CRL_TYPE,),
            other_statuses=NOT_MODIFIED,
        ),
        Route(
            method="GET",
            path="/ca/{ca_id}.crl",
            access=Access.PUBLIC,
            handler=va.get_crl_of_ca,
            summary="The CRL of a CA, by its id",
            media_types=(CRL_TYPE,),
            other_statuses=NOT_MODIFIED,
        ),
        Route(
            method="GET",
            path="/ca/{ca_id}.crt",
            access=Access.PUBLIC,
            handler=va.get_certificate,
            summary="The certificate of a CA (caIssuers)",
            media_types=(CERTIFICATE_TYPE,),
            other_statuses=NOT_MODIFIED,
        ),
        *public_filter_routes(service),
    ]


def _roles(path: str, va: _Handlers) -> list[Route]:
    return [
        Route(
            method="GET",
            path=path,
            access=Access.action("va:read", scope="ski"),
            handler=va.get_role,
            summary="How a CA's CRLs are made",
            answer=VaRole,
        ),
        Route(
            method="PUT",
            path=path,
            access=Access.action("va:update", scope="ski"),
            handler=va.put_role,
            summary="Change how a CA's CRLs are made, from the next one on",
            body=CrlOptionsChange,
            answer=VaRole,
        ),
    ]


def _ocsp(method: str, path: str, handler: Callable[[Call], Awaitable[Response]]) -> Route:
    return Route(
        method=method,
        path=path,
        access=Access.PUBLIC,
        handler=handler,
        summary="The status of a certificate (OCSP)",
        description="Errors are OCSP's own, under status 200 (RFC 6960 §4.2.1).",
        media_types=(OCSP_TYPE,),
        other_statuses=NOT_MODIFIED if method == "GET" else {},
        body_limit=MOST_OCTETS,
        encode_error=encode_ocsp_error,
    )


class _Handlers:
    def __init__(self, service: VaService) -> None:
        self._service = service

    async def post_ocsp(self, call: Call) -> Response:
        answer = await self._service.answer_status(call.raw)
        return _ocsp_answer(answer.der, {"cache-control": "no-store"})

    async def get_ocsp(self, call: Call) -> Response:
        answer = await self._service.answer_status(decode_request(call.path["request"]))
        return self._cacheable(call, answer)

    async def get_ocsp_at_root(self, call: Call) -> Response:
        # every OCSP request begins with a SEQUENCE, whose base64 begins so
        if not call.path["request"].startswith("M"):
            raise NotFound("nothing is here", code=_NO_PATH)
        return await self.get_ocsp(call)

    def _cacheable(self, call: Call, answer: StatusAnswer) -> Response:
        """RFC 5019 §6.2, but for half the time (security rule 25)."""
        if answer.produced_at is None or answer.next_update is None:
            return _ocsp_answer(answer.der, {"cache-control": "no-store"})
        return cacheable(
            call,
            answer.der,
            OCSP_TYPE,
            etag=etag_of(answer.der),
            since=answer.produced_at,
            until=answer.next_update,
            now=self._service.now(),
        )

    async def get_crl(self, call: Call) -> Response:
        return self._crl_answer(call, await self._service.crl(call.path["ski"].lower()))

    async def get_crl_of_ca(self, call: Call) -> Response:
        return self._crl_answer(call, await self._service.crl_of_ca(call.path["ca_id"]))

    def _crl_answer(self, call: Call, crl: Crl) -> Response:
        return cacheable(
            call,
            crl.der,
            CRL_TYPE,
            etag=f'"{crl.ca_ski}-{crl.number}"',
            since=crl.this_update,
            until=crl.next_update,
            now=self._service.now(),
            at_most=rules.CRL_CACHE_SECONDS,
        )

    async def get_certificate(self, call: Call) -> Response:
        der = await self._service.ca_certificate(call.path["ca_id"])
        headers = {"etag": etag_of(der), "cache-control": "public, max-age=3600"}
        if is_held(call, headers["etag"]):
            return Response(None, 304, headers)
        return Response(der, 200, {"content-type": CERTIFICATE_TYPE, **headers})

    async def get_role(self, call: Call) -> Response:
        return json_answer(_role(await self._service.role(call.path["ski"])))

    async def put_role(self, call: Call) -> Response:
        change = call.decoded(CrlOptionsChange).change()
        state = await self._service.change_role(call.path["ski"], change, caller=call.caller)
        return json_answer(_role(state))


def decode_request(text: str) -> bytes:
    """The request in a GET's path: base64 in any spelling, padded or not.

    Raises `Malformed` (`ocsp_malformed`).
    """
    if len(text) > _FOUR_THIRDS:
        raise Malformed("OCSP request is too long", code="ocsp_malformed")
    # a form decoder on the way may have made blanks of the plus signs
    plain = text.replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("OCSP request is not base64", code="ocsp_malformed") from None


_STATUSES: Mapping[type[LamassuError], ResponseStatus] = {
    Malformed: ResponseStatus.MALFORMED_REQUEST,
    TooLarge: ResponseStatus.MALFORMED_REQUEST,
    Unavailable: ResponseStatus.TRY_LATER,
    TooMany: ResponseStatus.TRY_LATER,
}


def encode_ocsp_error(error: LamassuError) -> Response:
    """OCSP says its errors itself, under HTTP 200; a path that is none of its own is 404."""
    if error.code == _NO_PATH:
        return Response(None, 404)
    for kind, status in _STATUSES.items():
        if isinstance(error, kind):
            return _ocsp_answer(error_response(status), {"cache-control": "no-store"})
    internal = error_response(ResponseStatus.INTERNAL_ERROR)
    return _ocsp_answer(internal, {"cache-control": "no-store"})


def _ocsp_answer(der: bytes, headers: Mapping[str, str]) -> Response:
    return Response(der, 200, {"content-type": OCSP_TYPE, **headers})


def _role(state: RoleState) -> VaRole:
    role, latest = state.role, state.latest
    return VaRole(
        ca_ski=role.ca_ski,
        crl_options=CrlOptions(
            refresh_interval=role.refresh_interval,
            validity=role.validity,
            subject_key_id_signer=role.subject_key_id_signer,
            regenerate_on_revoke=role.regenerate_on_revoke,
        ),
        latest_crl=LatestCrl(
            version=latest.number if latest else 0,
            valid_from=latest.this_update if latest else None,
            valid_until=latest.next_update if latest else None,
        ),
        filter_interval=role.filter_interval,
    )
