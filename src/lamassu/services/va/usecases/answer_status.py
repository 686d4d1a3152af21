"""Answer an OCSP request (RFC 6960)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, TooMany
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.ocsp import (
    CertificateId,
    ResponseStatus,
    SingleResponse,
    build_response_data,
    error_response,
    parse_ocsp_request,
    signed_response,
)
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import Authorities, CertificateStanding
from lamassu.services.kms.contract import KeyPurpose, Keys
from lamassu.services.va import rules
from lamassu.services.va.model import Issuer, SignedAnswer, StatusAnswer, StatusClaim
from lamassu.services.va.usecases.issuers import IssuerTable

_MOST_KEPT = 20_000
_MOST_SIGNING = 128

_UNAUTHORIZED = StatusAnswer(error_response(ResponseStatus.UNAUTHORIZED))


@dataclass(frozen=True, slots=True)
class _Status:
    """What was found out about one entry of a request."""

    asked: CertificateId
    issuer: Issuer
    claim: StatusClaim
    read_at: datetime


class StatusAnswers:
    """Answers status queries from the CA's committed state, signed by the CA itself.

    The standing is read for every answer; only the signature of an equal, earlier answer is
    used again. A delegated responder's key and certificate would come in where `_sign` takes
    the issuer's.
    """

    def __init__(
        self, *, authorities: Authorities, keys: Keys, issuers: IssuerTable, clock: Clock
    ) -> None:
        self._authorities = authorities
        self._keys = keys
        self._issuers = issuers
        self._clock = clock
        self._kept: OrderedDict[tuple[str, bytes], SignedAnswer] = OrderedDict()
        self._signing = 0

    async def answer(self, request_der: bytes) -> StatusAnswer:
        """The response to a request, `unauthorized` when it names no CA of ours.

        Raises `Malformed` for what is no request, `Unavailable` and `TooMany` when it should
        be tried again.
        """
        request = parse_ocsp_request(request_der)
        found: list[_Status] = []
        for asked in request.certificates:
            status = await self._status(asked)
            if status is None:
                return _UNAUTHORIZED
            found.append(status)
        issuer = found[0].issuer
        if any(status.issuer.authority.id != issuer.authority.id for status in found):
            return _UNAUTHORIZED  # one response has one signer, who speaks for its own
        if request.nonce is not None or len(found) > 1:
            return await self._sign(issuer, found, nonce=request.nonce)
        return await self._sign_or_repeat(issuer, found[0])

    async def _status(self, asked: CertificateId) -> _Status | None:
        first: _Status | None = None
        for issuer in await self._issuers.find(asked):
            try:
                standing = await self._standing(issuer, asked.serial_number)
            except NotFound:  # the CA was deleted since the table was read
                self._issuers.forget()
                continue
            status = _Status(asked, issuer, rules.claim_of(standing), standing.read_at)
            if standing.known or standing.revoked:
                return status
            first = first or status
        return first

    async def _standing(self, issuer: Issuer, serial_number: int) -> CertificateStanding:
        if serial_number < 0:
            return CertificateStanding(known=False, revoked=False, read_at=self._clock.now())
        return await self._authorities.standing(issuer.authority.id, serial_hex(serial_number))

    async def _sign_or_repeat(self, issuer: Issuer, status: _Status) -> StatusAnswer:
        key = (issuer.authority.certificate.serial_number, status.asked.der)
        kept = self._kept.get(key)
        if kept is not None and kept.claim == status.claim:
            next_update = kept.answer.next_update
            if next_update is not None and rules.may_reuse(next_update, self._clock.now()):
                self._kept.move_to_end(key)
                return kept.answer
        answer = await self._sign(issuer, [status], nonce=None)
        if status.claim.known:  # there is no end of serial numbers that nobody has
            self._kept[key] = SignedAnswer(status.claim, answer)
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return answer

    async def _sign(
        self, issuer: Issuer, found: Sequence[_Status], *, nonce: bytes | None
    ) -> StatusAnswer:
        if self._signing >= _MOST_SIGNING:
            raise TooMany("too many status answers are being signed", retry_after=1)
        this_update = rules.to_the_second(min(status.read_at for status in found))
        next_update = this_update + rules.OCSP_LIFETIME
        produced_at = max(rules.to_the_second(self._clock.now()), this_update)
        data = build_response_data(
            [_single(status, this_update, next_update) for status in found],
            responder_spki=issuer.spki,
            produced_at=produced_at,
            nonce=nonce,
        )
        self._signing += 1
        try:
            signature = await self._keys.use(
                issuer.authority.key_id,
                lambda key: signing.sign(key, data),
                purpose=KeyPurpose.CA,
            )
        finally:
            self._signing -= 1
        encoded = signed_response(data, algorithm=issuer.algorithm, signature=signature)
        if nonce is not None:
            return StatusAnswer(encoded)
        return StatusAnswer(encoded, produced_at, next_update)


def _single(status: _Status, this_update: datetime, next_update: datetime) -> SingleResponse:
    claim = status.claim
    return SingleResponse(
        certificate_id=status.asked.der,
        known=claim.known,
        revoked_at=claim.revoked_at,
        reason=claim.reason,
        this_update=this_update,
        next_update=next_update,
    )
