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
from lamassu.services.va.usecases.offline import OfflineCas

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


@dataclass(frozen=True, slots=True)
class _Signer:
    """Who signs: the CA itself, or a responder with its certificate.

    `serial_number` is that of the signer's certificate. `until` bounds the answers.
    """

    key_id: str
    purpose: KeyPurpose
    serial_number: str
    spki: bytes
    algorithm: bytes
    certificates: Sequence[bytes] = ()
    until: datetime | None = None


class StatusAnswers:
    """Answers status queries from the CA's committed state, signed by the CA itself.

    The standing is read for every answer; only the signature of an equal, earlier answer is
    used again. For a CA whose key is offline a delegated responder answers (RFC 6960 §4.2.2.2):
    revoked is what the CA's imported CRL lists, and from its commit what was revoked here.
    """

    def __init__(
        self,
        *,
        authorities: Authorities,
        keys: Keys,
        issuers: IssuerTable,
        offline: OfflineCas,
        clock: Clock,
    ) -> None:
        self._authorities = authorities
        self._keys = keys
        self._issuers = issuers
        self._offline = offline
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
        signer = await self._signer(issuer)
        if signer is None:
            return _UNAUTHORIZED  # nobody here may speak for an offline CA
        try:
            if request.nonce is not None or len(found) > 1:
                return await self._sign(signer, found, nonce=request.nonce)
            return await self._sign_or_repeat(signer, found[0])
        except NotFound:  # the key went with its CA, which was deleted since the table was read
            self._issuers.forget()
            return _UNAUTHORIZED

    async def _signer(self, issuer: Issuer) -> _Signer | None:
        authority = issuer.authority
        if authority.key_id:
            serial_number = authority.certificate.serial_number
            return _Signer(
                authority.key_id, KeyPurpose.CA, serial_number, issuer.spki, issuer.algorithm
            )
        delegate = await self._offline.delegate(authority)
        if delegate is None:
            return None
        crl = await self._offline.in_force(authority)
        return _Signer(
            delegate.key_id,
            KeyPurpose.RESPONDER,
            delegate.serial_number,
            delegate.spki,
            delegate.algorithm,
            certificates=(delegate.certificate,),
            until=min(delegate.not_after, crl.next_update),
        )

    async def _status(self, asked: CertificateId) -> _Status | None:
        first: _Status | None = None
        for issuer in await self._issuers.find(asked):
            try:
                standing = await self._standing(issuer, asked.serial_number)
            except NotFound:  # the CA was deleted since the table was read
                self._issuers.forget()
                continue
            claim = await self._listed(issuer, asked.serial_number, rules.claim_of(standing))
            status = _Status(asked, issuer, claim, standing.read_at)
            if claim.known:
                return status
            first = first or status
        return first

    async def _listed(self, issuer: Issuer, serial_number: int, claim: StatusClaim) -> StatusClaim:
        """The claim, and for an offline CA what its CRL adds."""
        authority = issuer.authority
        if authority.key_id or claim.revoked_at is not None:
            return claim
        newest = await self._offline.newest(authority.certificate.subject_key_id)
        entry = newest.entries.get(serial_number) if newest is not None else None
        if entry is None:
            return claim
        return StatusClaim(known=True, revoked_at=entry.revoked_at, reason=entry.reason)

    async def _standing(self, issuer: Issuer, serial_number: int) -> CertificateStanding:
        if serial_number < 0:
            return CertificateStanding(known=False, revoked=False, read_at=self._clock.now())
        return await self._authorities.standing(issuer.authority.id, serial_hex(serial_number))

    async def _sign_or_repeat(self, signer: _Signer, status: _Status) -> StatusAnswer:
        key = (signer.serial_number, status.asked.der)
        kept = self._kept.get(key)
        if kept is not None and kept.claim == status.claim:
            next_update = kept.answer.next_update
            if next_update is not None and rules.may_reuse(next_update, self._clock.now()):
                self._kept.move_to_end(key)
                return kept.answer
        answer = await self._sign(signer, [status], nonce=None)
        if status.claim.known:  # there is no end of serial numbers that nobody has
            self._kept[key] = SignedAnswer(status.claim, answer)
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return answer

    async def _sign(
        self, signer: _Signer, found: Sequence[_Status], *, nonce: bytes | None
    ) -> StatusAnswer:
        if self._signing >= _MOST_SIGNING:
            raise TooMany("too many status answers are being signed", retry_after=1)
        this_update = rules.to_the_second(min(status.read_at for status in found))
        next_update = this_update + rules.OCSP_LIFETIME
        if signer.until is not None:
            next_update = min(next_update, signer.until)
        produced_at = max(rules.to_the_second(self._clock.now()), this_update)
        data = build_response_data(
            [_single(status, this_update, next_update) for status in found],
            responder_spki=signer.spki,
            produced_at=produced_at,
            nonce=nonce,
        )
        self._signing += 1
        try:
            signature = await self._keys.use(
                signer.key_id,
                lambda key: signing.sign(key, data),
                purpose=signer.purpose,
            )
        finally:
            self._signing -= 1
        encoded = signed_response(
            data,
            algorithm=signer.algorithm,
            signature=signature,
            certificates=signer.certificates,
        )
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
