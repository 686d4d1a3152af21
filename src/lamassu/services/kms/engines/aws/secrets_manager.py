"""AWS Secrets Manager: private keys kept as secrets, and other secrets read for configuration.

The keys come into this process to sign, so that production makes no new CA keys here. A key's
secret is named by its key id and has the original's form: each of the two reads what the other
wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from lamassu.kernel.errors import NotFound, RuleViolation, Unavailable
from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import Engine, KeyPurpose, KeySpec
from lamassu.services.kms.engines.aws.access import AwsAccess, Pace
from lamassu.services.kms.engines.aws.errors import AwsAnswer
from lamassu.services.kms.engines.aws.key_secret import key_of, secret_of
from lamassu.services.kms.engines.aws.marks import INSTALLATION, ORPHAN, check_mark, marks
from lamassu.services.kms.engines.aws.service import AwsService
from lamassu.services.kms.engines.keys_in_memory import (
    KEYS_IN_MEMORY,
    SUPPORTED,
    OpenedKeys,
    generate_key,
    public_key_of,
    signs_inline,
)
from lamassu.services.kms.model import MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineDown, EngineLimits

WORKERS = 32
RECOVERY_DAYS = 7  # the shortest that leaves a way back from a mistake; the original's too
PAGE = 100
PAGES_LIMIT = 100

_KEY_ID = re.compile(r"[0-9a-f]{64}")


class SecretsManagerEngine:
    """A `CryptoEngine` that lists, takes in and gives out keys, and signs P-256 inline."""

    def __init__(
        self,
        engine_id: str,
        access: AwsAccess,
        *,
        limits: EngineLimits | None = None,
        installation: str = "",
        metadata: Mapping[str, Json] | None = None,
    ) -> None:
        """`installation` marks the keys that are made here."""
        self.limits = limits or EngineLimits(workers=WORKERS)
        self._id = engine_id
        self._installation = installation
        self._metadata = dict(metadata or {})
        self._service = AwsService(
            "secretsmanager", engine_id=engine_id, access=access, limits=self.limits
        )
        self._opened = OpenedKeys(KEYS_IN_MEMORY)

    def facts(self) -> Engine:
        return Engine(
            id=self._id,
            type="AWS_SECRETS_MANAGER",
            provider="Amazon Web Services",
            name="Secrets Manager",
            security_level=1,
            default=False,
            supported=SUPPORTED,
            metadata=self._metadata,
            for_ca_keys=False,
        )

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        return self.take_in(generate_key(spec), purpose=purpose)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        public_key = public_key_of(key)
        made = MadeKey(key_id_of(public_key), public_key)
        try:
            self._write(made.key_id, key, purpose)
        except AwsAnswer as answer:
            if answer.name == "LimitExceededException":
                raise Unavailable(
                    f"crypto engine {self._id}: the account has as many secrets as its quota"
                    " allows",
                    code="engine_full",
                ) from None
            if answer.name not in {"ResourceExistsException", "InvalidRequestException"}:
                raise
            self._take_back(made.key_id, purpose)
        self._opened.put(made.key_id, purpose, key)
        return made

    def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        return self.private_key(key_id, purpose=purpose)

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        key = self._opened.get(key_id, purpose)
        if key is None:
            key = self._read(key_id, purpose)
            self._opened.put(key_id, purpose, key)
        return key

    def inline_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey | None:
        key = self._opened.get(key_id, purpose)
        return key if key is not None and signs_inline(key) else None

    def delete(self, key_id: str) -> None:
        self._opened.forget(key_id)
        if not _KEY_ID.fullmatch(key_id):
            return
        try:
            self._call_secret(
                "delete_secret", {"SecretId": key_id, "RecoveryWindowInDays": RECOVERY_DAYS}
            )
        except AwsAnswer as answer:
            # gone, or marked as deleted already
            if answer.name not in {"ResourceNotFoundException", "InvalidRequestException"}:
                raise

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        if not self._installation:
            return ()
        return [
            secret["Name"]
            for secret in self._secrets()
            if _KEY_ID.fullmatch(secret["Name"])
            and secret.get("CreatedDate", made_before) < made_before
            and _is_its(self._installation, _tags(secret))
        ]

    def set_aside(self, key_id: str) -> None:
        """Tagged, for people to judge; the tag goes when the key is used after all."""
        self._opened.forget(key_id)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(AwsAnswer):  # deleted meanwhile
            self._call_secret(
                "tag_resource", {"SecretId": key_id, "Tags": [{"Key": ORPHAN, "Value": since}]}
            )

    def check(self) -> None:
        self._service.call("list_secrets", {"MaxResults": 1}, pace=Pace.CHECK, gives="SecretList")

    def close(self) -> None:
        self._opened.clear()
        self._service.close()

    def read_secret(self, name: str) -> str:
        """The text of a secret that is no key, for `${secret:engine/name}`.

        Raises `NotFound` (`secret_missing`), `RuleViolation` (`secret_is_key`,
        `secret_is_binary`), `EngineDown`, `Unavailable`.
        """
        if _KEY_ID.fullmatch(name):
            raise RuleViolation(
                f"{name} in engine {self._id} is a private key; name another secret",
                code="secret_is_key",
            )
        try:
            answer = self._call_secret("get_secret_value", {"SecretId": name}, "Name")
        except AwsAnswer as refusal:
            if refusal.name == "DecryptionFailure":
                raise _undecryptable(name) from None
            raise NotFound(
                f"engine {self._id} has no secret {name}, or it is marked as deleted",
                code="secret_missing",
            ) from None
        text = answer.get("SecretString")
        if not isinstance(text, str):
            raise RuleViolation(
                f"the secret {name} in engine {self._id} is binary; keep it as text",
                code="secret_is_binary",
            )
        return text

    def _write(self, key_id: str, key: PrivateKey, purpose: KeyPurpose) -> None:
        tags = marks(installation=self._installation, engine_id=self._id, purpose=purpose)
        self._service.call(
            "create_secret",
            {
                "Name": key_id,
                "SecretString": secret_of(key),
                "Description": f"Lamassu, engine {self._id}, purpose {purpose.value}",
                "Tags": [{"Key": name, "Value": value} for name, value in tags.items()],
            },
            gives="Name",
        )

    def _take_back(self, key_id: str, purpose: KeyPurpose) -> None:
        """Judge the secret that is there already, recovered if it was deleted."""
        try:
            self._read(key_id, purpose)
        except Unavailable as error:
            if error.code != "key_lost":
                raise
            self._call_secret("restore_secret", {"SecretId": key_id})
            self._read(key_id, purpose)

    def _read(self, key_id: str, purpose: KeyPurpose) -> PrivateKey:
        if not _KEY_ID.fullmatch(key_id):
            raise _lost(key_id)
        self._judge(key_id, purpose)
        try:
            answer = self._call_secret("get_secret_value", {"SecretId": key_id}, "Name")
        except AwsAnswer as refusal:
            raise _unusable(key_id, refusal) from None
        key = key_of(answer.get("SecretString", ""))
        if key is None or key_id_of(public_key_of(key)) != key_id:
            raise Unavailable(
                f"the secret {key_id} in AWS Secrets Manager does not hold the key that it is"
                " named by; restore an earlier version of it",
                code="key_damaged",
            )
        return key

    def _judge(self, key_id: str, purpose: KeyPurpose) -> None:
        """Refuse a key tagged for another purpose; take back into use one that was set aside."""
        try:
            tags = _tags(self._call_secret("describe_secret", {"SecretId": key_id}, "Name"))
        except AwsAnswer as refusal:
            raise _unusable(key_id, refusal) from None
        except EngineDown:
            raise
        except Unavailable:  # the policy lets nobody look: the tags decide nothing by themselves
            return
        check_mark(key_id, tags, purpose)
        if ORPHAN in tags:
            with suppress(Unavailable):
                self._call_secret("untag_resource", {"SecretId": key_id, "TagKeys": [ORPHAN]})

    def _secrets(self) -> Iterator[Mapping[str, Any]]:
        """Every secret that carries a tag of ours. Raises `Unavailable` (`engine_crowded`)."""
        asked: dict[str, object] = {
            "MaxResults": PAGE,
            "Filters": [{"Key": "tag-key", "Values": [INSTALLATION]}],
        }
        for _ in range(PAGES_LIMIT):
            answer = self._service.call("list_secrets", asked, gives="SecretList")
            yield from answer["SecretList"]
            if not answer.get("NextToken"):
                return
            asked["NextToken"] = answer["NextToken"]
        raise Unavailable(
            f"crypto engine {self._id}: more than {PAGE * PAGES_LIMIT} keys; those that no row"
            " knows are not looked for",
            code="engine_crowded",
        )

    def _call_secret(
        self, operation: str, parameters: Mapping[str, object], gives: str | None = None
    ) -> dict[str, Any]:
        return self._service.call(operation, parameters, about_key=True, gives=gives)


def _tags(secret: Mapping[str, Any]) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in secret.get("Tags") or ()}


def _is_its(installation: str, tags: Mapping[str, str]) -> bool:
    return tags.get(INSTALLATION) == installation and ORPHAN not in tags


def _unusable(key_id: str, refusal: AwsAnswer) -> Unavailable:
    if refusal.name == "ResourceNotFoundException":
        return _lost(key_id)
    if refusal.name == "InvalidRequestException":
        return Unavailable(
            f"the secret of key {key_id} is marked as deleted in AWS Secrets Manager; until its"
            " recovery window ends, an administrator of the account can restore it",
            code="key_lost",
        )
    if refusal.name == "DecryptionFailure":
        return _undecryptable(key_id)
    return refusal


def _undecryptable(name: str) -> Unavailable:
    return Unavailable(
        f"the secret {name} in AWS Secrets Manager cannot be decrypted; enable the KMS key that"
        " encrypts it, and allow kms:Decrypt with it",
        code="secret_undecryptable",
    )


def _lost(key_id: str) -> Unavailable:
    return Unavailable(
        f"AWS Secrets Manager has no secret {key_id} in this account and region; name the engine"
        " that holds the key",
        code="key_lost",
    )
