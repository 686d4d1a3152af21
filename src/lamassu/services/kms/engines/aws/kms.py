"""AWS KMS: keys that are made in the service and never leave it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import Engine, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.engines.aws.access import AwsAccess, Pace
from lamassu.services.kms.engines.aws.errors import AwsAnswer
from lamassu.services.kms.engines.aws.kms_keys import KmsKey, KmsKeys, unusable
from lamassu.services.kms.engines.aws.kms_signing import (
    KEY_SPECS,
    check_message,
    ecdsa_request,
    ml_dsa_representative,
    spec_of,
)
from lamassu.services.kms.engines.aws.marks import check_mark, marks
from lamassu.services.kms.engines.aws.service import AwsService
from lamassu.services.kms.engines.stand_in import stand_in
from lamassu.services.kms.model import MadeKey, PrivateKey, SignatureScheme
from lamassu.services.kms.ports import EngineDown, EngineLimits

WORKERS = 32  # calls at once: KMS answers in milliseconds, of which we compute next to nothing
SETTLING_SECONDS = 5.0  # KMS may not know for a moment what it has just made
THROTTLED_PAUSES = (0.5, 1.0, 2.0)  # seconds before CreateKey, which has a small quota, is repeated

_NEVER_THERE = frozenset({"UnsupportedOperationException", "ValidationException"})


class AwsKmsEngine:
    """A `CryptoEngine` that also lists its installation's keys."""

    def __init__(
        self,
        engine_id: str,
        access: AwsAccess,
        *,
        limits: EngineLimits | None = None,
        first: KeySpec | None = None,
        installation: str = "",
        metadata: Mapping[str, Json] | None = None,
    ) -> None:
        """`first` is the spec that is offered before the others; `installation` marks keys."""
        self.limits = limits or EngineLimits(workers=WORKERS)
        self._id = engine_id
        self._first = first
        self._installation = installation
        self._metadata = dict(metadata or {})
        self._service = AwsService("kms", engine_id=engine_id, access=access, limits=self.limits)
        self._keys = KmsKeys(self._service)

    def facts(self) -> Engine:
        return Engine(
            id=self._id,
            type="AWS_KMS",
            provider="Amazon Web Services",
            name="KMS",
            security_level=2,
            default=False,
            supported=_supported(self._first),
            metadata=self._metadata,
        )

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        arn = self._create(spec, purpose)
        try:
            public_key: bytes = self._settled("get_public_key", {"KeyId": arn}, "PublicKey")[
                "PublicKey"
            ]
            loaded = _check_made(spec, public_key)
            key_id = key_id_of(public_key)
            self._name(arn, key_id)
        except LamassuError:
            # nobody will ever ask for it; if this fails too, its tags tell whose it is
            with suppress(Unavailable):
                self._keys.schedule_deletion(arn)
            raise
        settled_by = time.monotonic() + SETTLING_SECONDS
        tags = self._marks(purpose)
        self._keys.remember(KmsKey(key_id, arn, public_key, loaded, tags, settled_by))
        return MadeKey(key_id, public_key)

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        key = self._keys.get(key_id)
        check_mark(key_id, key.tags, purpose)
        return stand_in(key.public_key, _KmsSigner(self._keys, key))

    def delete(self, key_id: str) -> None:
        self._keys.delete(key_id)

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        if not self._installation:
            return ()
        seconds = self.limits.sign_seconds * 0.6  # the listing's own calls need the rest
        return self._keys.made_by(self._installation, before=made_before, seconds=seconds)

    def set_aside(self, key_id: str) -> None:
        self._keys.set_aside(key_id)

    def check(self) -> None:
        self._service.call("list_aliases", {"Limit": 1}, pace=Pace.CHECK, gives="Aliases")

    def close(self) -> None:
        self._service.close()

    def _create(self, spec: KeySpec, purpose: KeyPurpose) -> str:
        """The new key's ARN. Its tags come with it, so that a crash leaves none without."""
        name = KEY_SPECS.get(spec)
        if name is None:
            raise _cannot_make(spec)
        tags = [{"TagKey": key, "TagValue": value} for key, value in self._marks(purpose).items()]
        wanted = {
            "KeySpec": name,
            "KeyUsage": "SIGN_VERIFY",
            "Description": f"Lamassu, engine {self._id}, purpose {purpose.value}",
            "Tags": tags,
        }
        try:
            arn: str = self._create_patiently(wanted)["KeyMetadata"]["Arn"]
        except AwsAnswer as refusal:
            if refusal.name in _NEVER_THERE:
                raise _cannot_make(spec) from None
            if refusal.name == "LimitExceededException":
                raise Unavailable(
                    f"crypto engine {self._id}: the account has as many KMS keys as its quota"
                    " allows; delete some or have the quota raised",
                    code="engine_full",
                ) from None
            raise
        return arn

    def _create_patiently(self, wanted: Mapping[str, object]) -> dict[str, Any]:
        """Only a throttled CreateKey is repeated: after any other failure there may be a key."""
        for pause in THROTTLED_PAUSES:
            try:
                return self._service.call("create_key", wanted, pace=Pace.MAKE, gives="KeyMetadata")
            except EngineDown as error:
                if error.code != "engine_throttled":
                    raise
                time.sleep(pause)
        return self._service.call("create_key", wanted, pace=Pace.MAKE, gives="KeyMetadata")

    def _name(self, arn: str, key_id: str) -> None:
        try:
            self._settled("create_alias", {"AliasName": f"alias/{key_id}", "TargetKeyId": arn})
        except AwsAnswer as answer:
            # a new key's id is new: an alias of that name is this call's own, asked a second time
            if answer.name != "AlreadyExistsException":
                raise

    def _settled(
        self, operation: str, parameters: Mapping[str, object], gives: str | None = None
    ) -> dict[str, Any]:
        """Ask about what was just made, again while KMS has not heard of it."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            try:
                return self._service.call(operation, parameters, gives=gives)
            except AwsAnswer as answer:
                if answer.name != "NotFoundException" or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _marks(self, purpose: KeyPurpose) -> Mapping[str, str]:
        return marks(installation=self._installation, engine_id=self._id, purpose=purpose)


class _KmsSigner:
    """`RemoteSigner` for one key."""

    def __init__(self, keys: KmsKeys, key: KmsKey) -> None:
        self._keys = keys
        self._key = key

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        name, key = scheme.name, self._key.loaded
        if isinstance(key, ec.EllipticCurvePublicKey):
            name, digest = ecdsa_request(digest, key.curve.key_size)
        return self._sign(digest, "DIGEST", name)

    def sign_message(self, message: bytes, scheme: SignatureScheme) -> bytes:
        if scheme.algorithm is KeyAlgorithm.ED25519:
            check_message(message)
            return self._sign(message, "RAW", "ED25519_SHA_512")
        raw = self._key.loaded.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return self._sign(ml_dsa_representative(raw, message), "EXTERNAL_MU", "ML_DSA_SHAKE_256")

    def _sign(self, message: bytes, message_type: str, algorithm: str) -> bytes:
        key = self._key
        wanted = {
            "KeyId": key.arn,
            "Message": message,
            "MessageType": message_type,
            "SigningAlgorithm": algorithm,
        }
        while True:
            try:
                signature: bytes = self._keys.call("sign", wanted, "Signature")["Signature"]
            except AwsAnswer as refusal:
                if refusal.name == "NotFoundException" and time.monotonic() < key.settled_by:
                    time.sleep(0.1)
                    continue
                self._keys.forget(key.key_id)
                raise unusable(key.key_id, refusal) from None
            return signature


def _supported(first: KeySpec | None) -> Mapping[KeyAlgorithm, Sequence[int]]:
    """What KMS makes, `first` before all else: who offers a choice offers it in this order."""
    specs = list(KEY_SPECS)
    if first is not None:
        specs.sort(key=lambda spec: (spec.algorithm is not first.algorithm, spec != first))
    supported: dict[KeyAlgorithm, list[int]] = {}
    for spec in specs:
        supported.setdefault(spec.algorithm, []).append(spec.size)
    return supported


def _check_made(spec: KeySpec, public_key: bytes) -> PublicKeyTypes:
    """Whether the service made what was asked: a partial one makes what it knows."""
    try:
        loaded = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise _cannot_make(spec) from None
    if spec_of(loaded) != spec:
        raise _cannot_make(spec)
    return loaded


def _cannot_make(spec: KeySpec) -> RuleViolation:
    return RuleViolation(
        f"AWS KMS makes no {spec.algorithm} keys of size {spec.size} in this region",
        code="unsupported_key",
        field="size",
    )
