"""The steps of a session. Each ends with a line of the transcript; a crash repeats one at most.

What a signature is about is written down before it is made: if the crash comes in between, the
same serial number or CRL number is signed again with the same content, never another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.crls import build_crl, parse_crl, signed, verify_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_facts
from lamassu.kernel.x509.serials import new_serial_number, serial_hex, serial_int
from lamassu.services.ceremony import rules
from lamassu.services.ceremony.contract.bundle import Bundle, bundle_file, bundle_message
from lamassu.services.ceremony.contract.signed_text import (
    algorithm_of,
    digest_of,
    encoded,
)
from lamassu.services.ceremony.contract.transcript import Deed, Line, Signed, seal_message
from lamassu.services.ceremony.model import AgreedRequest, AgreedRoot, Plan
from lamassu.services.ceremony.ports import Ledger, RootKeys, Tell
from lamassu.services.ceremony.usecases.journal import Journal, Session
from lamassu.services.ceremony.usecases.plan_text import subject_text


class Steps:
    """Does what the plan of the open session says and the journal does not show as done."""

    def __init__(self, *, journal: Journal, ledger: Ledger, keys: RootKeys, clock: Clock) -> None:
        self._journal = journal
        self._ledger = ledger
        self._keys = keys
        self._clock = clock

    async def perform(self, tell: Tell) -> None:
        """See `Ceremony.perform`."""
        session, plan = self._present()
        if plan.root is not None and self._journal.transcript.root is None:
            await self._make_root_key(session, plan.root, tell)
            await self._sign_root(plan.root, plan, tell)
        await self.check_token()
        for item, request in enumerate(plan.requests):
            await self._sign_request(item, request, plan, tell)
        await self._sign_crl(plan, tell)
        await self._write_bundle(tell)
        await self._seal(tell)

    async def check_token(self) -> None:
        """Refuse a token that holds another key than this ceremony's root.

        Raises `RuleViolation` (`another_token`), `Unavailable`.
        """
        root, key_id = self._journal.transcript.root, self._journal.root_key()
        assert root is not None
        assert key_id is not None
        if key_id not in await self._keys.held() or (
            await self._keys.public_key(key_id) != certificate_facts(root).spki
        ):
            raise RuleViolation(
                "the token does not hold this root's key; insert the right one, or name its"
                " engine with --engine",
                code="another_token",
            )

    def _present(self) -> tuple[Session, Plan]:
        session = self._journal.session
        plan = session.plan if session is not None else None
        if session is None or plan is None:
            raise RuleViolation("nothing was agreed on yet", code="no_plan")
        return session, plan

    def _write(self, deed: Deed, facts: Mapping[str, Json]) -> Line:
        session, _ = self._present()
        return self._journal.write(deed, facts, session=session.number)

    # --- the root -----------------------------------------------------------------------------

    async def _make_root_key(self, session: Session, root: AgreedRoot, tell: Tell) -> None:
        if self._journal.root_key() is not None:
            return
        intended = session.first(Deed.KEY_INTENDED)
        if intended is None:
            held = sorted(await self._keys.held())
            intended = self._write(
                Deed.KEY_INTENDED,
                {"algorithm": root.key.algorithm.value, "size": root.key.size, "held": held},
            )
        key_id = await self._key_made_before(intended, root)
        found = key_id is not None
        if key_id is None:
            key_id = await self._keys.make(root.key)
        spki = await self._keys.public_key(key_id)
        facts = {"key_id": key_id, "public_key": encoded(spki), "sha256": digest_of(spki)}
        self._write(Deed.KEY_MADE, {**facts, "found_after_interruption": found})
        again = " (found in the token: made before the interruption)" * found
        tell(f"root key: {digest_of(spki)}{again}")

    async def _key_made_before(self, intended: Line, root: AgreedRoot) -> str | None:
        """The key that a run made which was cut off before it could write that down."""
        before = intended.facts["held"]
        assert isinstance(before, list)
        fresh = [key_id for key_id in await self._keys.held() if key_id not in before]
        if len(fresh) > 1:
            raise RuleViolation(
                f"the token holds {len(fresh)} new keys since this session wanted to make one:"
                f" {', '.join(fresh)}; remove those that are not the root's",
                code="keys_ambiguous",
            )
        for key_id in fresh:
            facts = key_facts(await self._keys.public_key(key_id))
            if (facts.algorithm, facts.size) != (root.key.algorithm.value, root.key.size):
                raise RuleViolation(
                    f"the token holds a new key {key_id} of another kind; remove it",
                    code="keys_ambiguous",
                )
            return key_id
        return None

    async def _sign_root(self, root: AgreedRoot, plan: Plan, tell: Tell) -> None:
        key_id = self._journal.root_key()
        assert key_id is not None
        serial = self._serial_of(Signed.ROOT, 0)
        spki = await self._keys.public_key(key_id)
        der = await self._keys.use(
            key_id, lambda key: rules.sign_root(key, root, plan.at, spki, serial)
        )
        self._write_signed(Signed.ROOT, 0, der)
        tell(f"root certificate: {digest_of(der)} (SHA-256), until {root.not_after:%Y-%m-%d}")

    # --- what it signs ------------------------------------------------------------------------

    async def _sign_request(
        self, item: int, request: AgreedRequest, plan: Plan, tell: Tell
    ) -> None:
        if self._is_signed(request.kind, item):
            return
        issuer, key_id = self._root()
        serial = self._serial_of(request.kind, item)
        der = await self._keys.use(
            key_id, lambda key: rules.sign_request(key, request, plan.at, issuer, serial)
        )
        self._write_signed(request.kind, item, der)
        what = "CA" if request.kind is Signed.CA else "OCSP responder"
        tell(f"{what} certificate: {subject_text(request)}, until {request.not_after:%Y-%m-%d}")

    def _root(self) -> tuple[bytes, str]:
        root, key_id = self._journal.transcript.root, self._journal.root_key()
        assert root is not None
        assert key_id is not None
        return root, key_id

    def _is_signed(self, kind: Signed, item: int) -> bool:
        session, _ = self._present()
        return any(
            line.facts["kind"] == kind.value and line.facts["item"] == item
            for line in session.all(Deed.CERTIFICATE_SIGNED)
        )

    def _serial_of(self, kind: Signed, item: int) -> int:
        """The serial number that was drawn for this certificate, or a new one, written down."""
        session, _ = self._present()
        for line in session.all(Deed.CERTIFICATE_DRAFTED):
            if line.facts["kind"] == kind.value and line.facts["item"] == item:
                return serial_int(str(line.facts["serial_number"]))
        serial = new_serial_number()
        self._write(
            Deed.CERTIFICATE_DRAFTED,
            {"kind": kind.value, "item": item, "serial_number": serial_hex(serial)},
        )
        return serial

    def _write_signed(self, kind: Signed, item: int, der: bytes) -> None:
        self._write(
            Deed.CERTIFICATE_SIGNED,
            {
                "kind": kind.value,
                "item": item,
                "certificate": encoded(der),
                "sha256": digest_of(der),
            },
        )

    # --- the CRL ------------------------------------------------------------------------------

    async def _sign_crl(self, plan: Plan, tell: Tell) -> None:
        session, _ = self._present()
        if session.first(Deed.CRL_SIGNED) is not None:
            return
        issuer, key_id = self._root()
        root = certificate_facts(issuer)
        number = self._crl_number(session, plan)
        algorithm = signing.signature_algorithm(root.key)
        tbs = build_crl(
            issuer_der=root.subject_der,
            issuer_key_id=bytes.fromhex(root.ski),
            algorithm=algorithm,
            number=number,
            this_update=plan.at,
            next_update=plan.next_update,
            entries=plan.entries,
        )
        signature = await self._keys.use(key_id, lambda key: signing.sign(key, tbs))
        crl = signed(tbs, algorithm=algorithm, signature=signature)
        verify_crl(parse_crl(crl), issuer_der=root.subject_der, spki=root.spki)
        self._write(
            Deed.CRL_SIGNED, {"number": number, "crl": encoded(crl), "sha256": digest_of(crl)}
        )
        revoked = len(plan.entries)
        tell(f"CRL number {number}: {revoked} revoked, until {plan.next_update:%Y-%m-%d}")

    def _crl_number(self, session: Session, plan: Plan) -> int:
        """Numbered before signing: a number may be skipped, none comes twice."""
        drawn = session.first(Deed.CRL_NUMBERED)
        if drawn is not None:
            return int(str(drawn.facts["number"]))
        used = [
            int(str(line.facts["number"]))
            for line in self._journal.transcript.lines
            if line.deed is Deed.CRL_NUMBERED
        ]
        number = max(used, default=0) + 1
        self._write(
            Deed.CRL_NUMBERED,
            {
                "number": number,
                "this_update": format_time(plan.at),
                "next_update": format_time(plan.next_update),
            },
        )
        return number

    # --- what is carried across ---------------------------------------------------------------

    async def _write_bundle(self, tell: Tell) -> None:
        session, plan = self._present()
        if session.first(Deed.BUNDLE_WRITTEN) is not None:
            return
        root, key_id = self._root()
        transcript = self._journal.transcript
        bundle = Bundle(
            ceremony=transcript.ceremony,
            session=session.number,
            made_at=plan.at,
            root=root,
            certificates=_unexpired(transcript.certificates(Signed.CA), plan),
            responders=_unexpired(transcript.certificates(Signed.RESPONDER), plan),
            crl=transcript.latest_crl(),
            transcript=self._journal.text,
        )
        message = bundle_message(bundle)
        signature = await self._keys.use(key_id, lambda key: signing.sign(key, message))
        content = bundle_file(bundle, signature)
        name = f"session-{session.number}.bundle"
        place = await asyncio.to_thread(self._ledger.keep, name, content)
        self._write(Deed.BUNDLE_WRITTEN, {"name": name, "sha256": digest_of(content)})
        tell(f"bundle: {place}\n  SHA-256 {digest_of(content)}")

    async def _seal(self, tell: Tell) -> None:
        root, key_id = self._root()
        transcript = self._journal.transcript
        message = seal_message(transcript.ceremony, len(transcript.lines), transcript.head)
        signature = await self._keys.use(key_id, lambda key: signing.sign(key, message))
        self._write(Deed.SEALED, {"algorithm": algorithm_of(root), "signature": encoded(signature)})
        tell(
            f"transcript: sealed with {len(self._journal.transcript.lines)} lines, the last of"
            f" hash\n  {self._journal.transcript.head}"
        )


def _unexpired(certificates: Sequence[bytes], plan: Plan) -> Sequence[bytes]:
    return [der for der in certificates if certificate_facts(der).not_after >= plan.at]
