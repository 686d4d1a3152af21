"""Keys in an HSM: made there, used there, never seen here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import c_ulong
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import cast

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11.constants import Attribute
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Object
from pkcs11.types import PrivateKey as PrivateObject

from lamassu.kernel.clock import Clock, SystemClock
from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import Engine, KeyPurpose, KeySpec
from lamassu.services.kms.engines.pkcs11 import mechanisms, objects, templates
from lamassu.services.kms.engines.pkcs11.connection import Seat, TokenSettings, check_login
from lamassu.services.kms.engines.pkcs11.errors import LOST, NOT_TAKEN, STALE
from lamassu.services.kms.engines.pkcs11.functions import key_handle
from lamassu.services.kms.engines.pkcs11.leftovers import name_leftovers
from lamassu.services.kms.engines.pkcs11.mechanisms import Recipe
from lamassu.services.kms.engines.pkcs11.module import set_environment
from lamassu.services.kms.engines.pkcs11.objects import Name, Pair, Unreadable
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins
from lamassu.services.kms.engines.pkcs11.token import TokenLink
from lamassu.services.kms.engines.pkcs11.unwrapping import unwrap_into
from lamassu.services.kms.engines.stand_in import stand_in
from lamassu.services.kms.model import MadeKey, PrivateKey, SignatureScheme
from lamassu.services.kms.ports import EngineLimits

METADATA = "lamassu.io/cryptoengine/pkcs11"  # the original's keys
STAND_INS_KEPT = 4096


class Pkcs11Engine:
    """A `CryptoEngine` over one token."""

    _backup = False  # whether new keys can leave the token, encrypted

    def __init__(
        self,
        settings: TokenSettings,
        pins: RefusedPins,
        *,
        metadata: Mapping[str, Json] | None = None,
        sign_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        """Sets the variables that the vendor's library reads; asks nothing of the token."""
        set_environment(settings.env)
        self.limits = EngineLimits(workers=settings.sessions, sign_seconds=sign_seconds)
        self._id = settings.engine_id
        self._link = TokenLink(settings, pins)
        self._metadata = dict(metadata or {})
        self._clock = clock or SystemClock()
        self._stand_ins: dict[tuple[str, KeyPurpose], PrivateKey] = {}

    def facts(self) -> Engine:
        """Before the first connection: what every token for CAs can do."""
        token = self._link.facts
        own: dict[str, Json] = {}
        if token is not None:
            own = {
                f"{METADATA}/cryptoki-version": token.cryptoki_version,
                f"{METADATA}/library": token.library,
                f"{METADATA}/manufacturer": token.manufacturer,
                f"{METADATA}/model": token.model,
            }
        return Engine(
            id=self._id,
            type="PKCS11",
            provider=token.manufacturer if token else "PKCS #11",
            name=token.model if token else "token not reached yet",
            security_level=2,
            default=False,
            supported=token.supported if token else mechanisms.ASSUMED,
            metadata={**own, **self._metadata},
        )

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        return self._link.browse(lambda seat: self._generate(seat, spec, purpose))

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        """Raises `RuleViolation`: `unsupported_key`, `key_not_importable`."""
        kind = objects.kind_of(key.public_key())
        if kind is None:
            raise RuleViolation("a token holds no keys of this kind", code="unsupported_key")
        spec = KeySpec(*kind)
        return self._link.browse(lambda seat: self._take_in(seat, key, spec, purpose))

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        known = self._stand_ins.get((key_id, purpose))
        if known is not None:
            return known
        pair = self._link.browse(lambda seat: self._get(seat, key_id, purpose))
        found = objects.kind_of(load_der_public_key(pair.public_key))
        if found is None:
            raise Unavailable(f"key {key_id} is of a kind that is not used", code="key_damaged")
        key = stand_in(pair.public_key, _Signer(self, key_id, purpose, mechanisms.recipes(*found)))
        if len(self._stand_ins) >= STAND_INS_KEPT:
            self._stand_ins.clear()
        self._stand_ins[key_id, purpose] = key
        return key

    def delete(self, key_id: str) -> None:
        self._forget(key_id)
        self._link.browse(lambda seat: _destroy(seat, key_id))
        self._forget(key_id)

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        now = self._clock.now()
        return self._link.browse(
            lambda seat: [
                name.key_id
                for name, day in objects.named_keys(seat.session)
                if not name.aside and _made_by(day, now) <= made_before
            ]
        )

    def name_leftovers(self, *, purpose: KeyPurpose) -> Sequence[str]:
        return self._link.browse(lambda seat: name_leftovers(seat.session, purpose))

    def set_aside(self, key_id: str) -> None:
        """Only its label says so: another installation that shares the token may need it."""
        self._link.browse(lambda seat: _relabel(seat, key_id, aside=True))

    def check(self) -> None:
        self._link.check()

    def close(self) -> None:
        self._stand_ins.clear()
        self._link.close()

    def sign(self, key_id: str, purpose: KeyPurpose, recipe: Recipe, data: bytes) -> bytes:
        """What the token makes of the data with this key."""
        return self._link.run(lambda seat: self._sign(seat, key_id, purpose, recipe, data))

    def _sign(
        self, seat: Seat, key_id: str, purpose: KeyPurpose, recipe: Recipe, data: bytes
    ) -> bytes:
        key = seat.keys.get(key_id)
        if key is not None:
            try:
                return signature_of(seat, key, recipe, data)
            except STALE:
                del seat.keys[key_id]
        with seat.connection.module.browsing:
            key = handle_of(self._get(seat, key_id, purpose).private)
        seat.remember(key_id, key)
        return signature_of(seat, key, recipe, data)

    def _get(self, seat: Seat, key_id: str, purpose: KeyPurpose) -> Pair:
        """Raises `Unavailable`: `key_lost`, `key_damaged`."""
        pair = find_named(seat, key_id)
        if pair is None:
            raise Unavailable(
                f"engine {self._id} has no key {key_id}; restore it into the token, or name the"
                " token that belongs to this database",
                code="key_lost",
            )
        if pair.name is None:
            return pair
        if pair.name.purpose is not purpose:
            raise Unavailable(
                f"the token says that key {key_id} was made for another purpose",
                code="key_damaged",
            )
        if pair.name.aside:
            # needed after all; a token that does not let it be renamed lets it sign
            with suppress(PKCS11Error):
                objects.rename(pair, Name(purpose, key_id))
        return pair

    def _generate(self, seat: Seat, spec: KeySpec, purpose: KeyPurpose) -> MadeKey:
        mechanisms.check_makes(spec.algorithm, spec.size, seat.connection.facts.supported)
        public, private = templates.generate_pair(
            seat.session,
            spec,
            label=objects.unnamed_label(purpose),
            key_id=secrets.token_bytes(16),
            backup=self._backup,
        )
        try:
            made = _made(objects.public_key_of(public))
            for one in (public, private):
                objects.give_name(one, Name(purpose, made.key_id))
        except LOST:
            raise
        except BaseException:
            for one in (private, public):
                with suppress(PKCS11Error):
                    one.destroy()
            raise
        self._date(public)
        seat.remember(made.key_id, handle_of(private))
        return made

    def _take_in(self, seat: Seat, key: PrivateKey, spec: KeySpec, purpose: KeyPurpose) -> MadeKey:
        mechanisms.check_makes(spec.algorithm, spec.size, seat.connection.facts.supported)
        made = _made(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        if find_named(seat, made.key_id) is not None:
            self._get(seat, made.key_id, purpose)
            return made
        named: templates.Named = {
            "label": Name(purpose, made.key_id).label,
            "key_id": bytes.fromhex(made.key_id),
        }
        try:
            public = seat.session.create_object(templates.public_object(key.public_key(), **named))
        except NOT_TAKEN as error:
            raise self._not_taken() from error
        try:
            self._create_private(seat, key, named)
        except BaseException:
            with suppress(PKCS11Error):
                public.destroy()
            raise
        self._date(public)
        return made

    def _create_private(self, seat: Seat, key: PrivateKey, named: templates.Named) -> PrivateObject:
        wanted = templates.private_object(key, **named, backup=self._backup)
        try:
            return cast("PrivateObject", seat.session.create_object(wanted))
        except NOT_TAKEN:
            # many HSMs take no key in clear, and take one that is encrypted to them
            try:
                return unwrap_into(seat.session, key, wanted)
            except NOT_TAKEN as error:
                raise self._not_taken() from error

    def _not_taken(self) -> RuleViolation:
        return RuleViolation(
            f"the token of engine {self._id} takes no keys made elsewhere; make a new key in it",
            code="key_not_importable",
            field="engine_id",
        )

    def _date(self, public: Object) -> None:
        """For reference only (PKCS #11 v2.40 §4.8): some tokens keep no dates."""
        with suppress(*NOT_TAKEN):
            public[Attribute.START_DATE] = self._clock.now().astimezone(UTC).date()

    def _forget(self, key_id: str) -> None:
        for purpose in KeyPurpose:
            self._stand_ins.pop((key_id, purpose), None)


class _Signer:
    """One key, for its stand-in."""

    __slots__ = ("_engine", "_key_id", "_purpose", "_recipes")

    def __init__(
        self,
        engine: Pkcs11Engine,
        key_id: str,
        purpose: KeyPurpose,
        recipes: Mapping[str, Recipe],
    ) -> None:
        self._engine = engine
        self._key_id = key_id
        self._purpose = purpose
        self._recipes = recipes

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        recipe = self._recipes[scheme.name]
        made = self._engine.sign(self._key_id, self._purpose, recipe, recipe.prepare(digest))
        return recipe.finish(made)

    def sign_message(self, message: bytes, scheme: SignatureScheme) -> bytes:
        return self.sign_digest(message, scheme)


def handle_of(key: PrivateObject) -> c_ulong:
    """A key of the token, as `signature_of` takes it."""
    handle = key.handle
    assert handle is not None  # the library gave one
    return key_handle(handle)


def signature_of(seat: Seat, key: c_ulong, recipe: Recipe, data: bytes) -> bytes:
    """What the token makes of prepared data. Raises as the library."""
    return seat.connection.module.sign(seat.desk, key, recipe.reference, data)


def _made(public_key: bytes) -> MadeKey:
    return MadeKey(key_id_of(public_key), public_key)


def find_named(seat: Seat, key_id: str) -> Pair | None:
    """Raises `Unavailable` (`key_damaged`), `UserNotLoggedIn`."""
    try:
        pair = objects.find_pair(seat.session, key_id)
    except Unreadable:
        raise Unavailable(
            f"the token's public key of {key_id} is missing or another's; restore both from the"
            " token's backup",
            code="key_damaged",
        ) from None
    if pair is None:
        check_login(seat)  # nothing private is seen without
    return pair


def _destroy(seat: Seat, key_id: str) -> None:
    """Every key of this id: an import that raced may have left two."""
    seat.keys.pop(key_id, None)
    while (pair := find_named(seat, key_id)) is not None:
        pair.private.destroy()
        for public in pair.public:
            public.destroy()


def _relabel(seat: Seat, key_id: str, *, aside: bool) -> None:
    pair = find_named(seat, key_id)
    if pair is not None and pair.name is not None and pair.name.aside is not aside:
        objects.rename(pair, replace(pair.name, aside=aside))


def _made_by(day: date | None, now: datetime) -> datetime:
    """An instant by which a key was there; its day is all that a token keeps."""
    if day is None:
        return now
    return min(now, datetime.combine(day + timedelta(days=1), time.min, UTC))
