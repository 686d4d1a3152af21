"""The keys of an account in AWS KMS, found by their aliases.

A key's name there is `alias/<key id>`, as the original has it: what one of the two made the
other finds. What an alias leads to is judged by its public key, so that an alias that somebody
moved signs nothing and deletes nothing.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.engines.aws.errors import AwsAnswer
from lamassu.services.kms.engines.aws.marks import INSTALLATION, ORPHAN
from lamassu.services.kms.engines.aws.service import AwsService
from lamassu.services.kms.ports import EngineDown

DELETION_DAYS = 7  # the shortest that KMS allows between a deletion and the end of the key
KEYS_REMEMBERED = 4096
PAGE = 100
PAGES_LIMIT = 200  # of aliases, in a listing
TAG_READERS = 8

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_ALIAS = re.compile(r"alias/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A key as KMS has it."""

    key_id: str
    arn: str
    public_key: bytes  # SubjectPublicKeyInfo, DER
    loaded: PublicKeyTypes
    tags: Mapping[str, str]
    settled_by: float = 0.0  # until then (monotonic) KMS may not know everywhere what it made


class KmsKeys:
    """Finds keys and remembers where they are. Safe for threads."""

    def __init__(self, service: AwsService) -> None:
        self._service = service
        self._found: OrderedDict[str, KmsKey] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key_id: str) -> KmsKey:
        """Raises `Unavailable`: `key_lost`, `key_disabled`, `key_damaged`."""
        with self._lock:
            key = self._found.get(key_id)
            if key is not None:
                self._found.move_to_end(key_id)
                return key
        if not _KEY_ID.fullmatch(key_id):
            raise _lost(key_id)
        key = self._look_up(key_id)
        if ORPHAN in key.tags:
            with suppress(Unavailable):
                self.call("untag_resource", {"KeyId": key.arn, "TagKeys": [ORPHAN]})
        self.remember(key)
        return key

    def remember(self, key: KmsKey) -> None:
        """Save the next `get` the way to KMS."""
        with self._lock:
            self._found[key.key_id] = key
            if len(self._found) > KEYS_REMEMBERED:
                self._found.popitem(last=False)

    def forget(self, key_id: str) -> None:
        """Ask KMS at the next `get`."""
        with self._lock:
            self._found.pop(key_id, None)

    def call(
        self, operation: str, parameters: Mapping[str, object], gives: str | None = None
    ) -> dict[str, Any]:
        """Ask KMS about one key. Raises as `AwsService.call`."""
        return self._service.call(operation, parameters, about_key=True, gives=gives)

    def delete(self, key_id: str) -> None:
        """Schedule the end of a key and take its alias away; one that is not there is fine."""
        arn = self._find_arn(key_id)
        self.forget(key_id)
        if arn is None:
            return
        self.schedule_deletion(arn)
        try:
            self.call("delete_alias", {"AliasName": f"alias/{key_id}"})
        except AwsAnswer as answer:
            if answer.name != "NotFoundException":
                raise

    def schedule_deletion(self, arn: str) -> None:
        """Have KMS delete a key when the shortest window is over."""
        try:
            self.call("schedule_key_deletion", {"KeyId": arn, "PendingWindowInDays": DELETION_DAYS})
        except AwsAnswer as answer:
            # gone, or pending deletion already
            if answer.name not in {"NotFoundException", "KMSInvalidStateException"}:
                raise

    def set_aside(self, key_id: str) -> None:
        """Tag it as a key that no row knows, for people to judge."""
        arn = self._find_arn(key_id)
        self.forget(key_id)
        if arn is None:
            return
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self.call("tag_resource", {"KeyId": arn, "Tags": [{"TagKey": ORPHAN, "TagValue": since}]})

    def made_by(self, installation: str, *, before: datetime, seconds: float) -> Sequence[str]:
        """The ids of an installation's keys, by their tags, without those set aside.

        The tags of each key are a call of their own: of a large account those are told that
        could be looked at in `seconds`, others each time. Raises `Unavailable`
        (`engine_crowded`).
        """
        deadline = time.monotonic() + seconds
        candidates = [
            (alias["AliasName"].removeprefix("alias/"), alias["TargetKeyId"])
            for alias in self._aliases()
            if _ALIAS.fullmatch(alias["AliasName"])
            and "TargetKeyId" in alias
            and _made_at(alias) < before
        ]
        random.shuffle(candidates)

        def is_its(candidate: tuple[str, str]) -> bool:
            if time.monotonic() > deadline:
                return False
            tags = self._tags(candidate[1])
            return tags.get(INSTALLATION) == installation and ORPHAN not in tags

        with ThreadPoolExecutor(TAG_READERS) as readers:
            judged = list(readers.map(is_its, candidates))
        return [key_id for (key_id, _), its in zip(candidates, judged, strict=True) if its]

    def _look_up(self, key_id: str) -> KmsKey:
        try:
            answer = self.call("get_public_key", {"KeyId": f"alias/{key_id}"}, "PublicKey")
        except AwsAnswer as refusal:
            raise unusable(key_id, refusal) from None
        arn, public_key = answer["KeyId"], answer["PublicKey"]
        if key_id_of(public_key) != key_id:
            raise Unavailable(
                f"alias/{key_id} in AWS KMS leads to another key; point it to the right one",
                code="key_damaged",
            )
        try:
            loaded = load_der_public_key(public_key)
        except (ValueError, UnsupportedAlgorithm):
            raise Unavailable(
                f"alias/{key_id} in AWS KMS leads to a key of an unknown kind", code="key_damaged"
            ) from None
        return KmsKey(key_id, arn, public_key, loaded, self._tags(arn))

    def _find_arn(self, key_id: str) -> str | None:
        try:
            return self.get(key_id).arn
        except Unavailable as error:
            if error.code == "key_lost":
                return None
            if error.code != "key_disabled":
                raise
        answer = self.call("describe_key", {"KeyId": f"alias/{key_id}"}, "KeyMetadata")
        arn: str = answer["KeyMetadata"]["Arn"]
        return arn

    def _tags(self, key: str) -> Mapping[str, str]:
        """None where the policy does not let them be read: they decide nothing by themselves."""
        try:
            answer = self.call("list_resource_tags", {"KeyId": key, "Limit": 50}, "Tags")
        except Unavailable as refusal:
            if isinstance(refusal, EngineDown):
                raise
            return {}
        return {tag["TagKey"]: tag["TagValue"] for tag in answer["Tags"]}

    def _aliases(self) -> Iterator[Mapping[str, Any]]:
        """Every alias of the region."""
        place: dict[str, object] = {}
        for _ in range(PAGES_LIMIT):
            answer = self._service.call("list_aliases", {"Limit": PAGE, **place}, gives="Aliases")
            yield from answer["Aliases"]
            if not answer.get("Truncated"):
                return
            place = {"Marker": answer["NextMarker"]}
        raise Unavailable(
            f"more than {PAGE * PAGES_LIMIT} aliases in AWS KMS; keys that no row knows are not"
            " looked for",
            code="engine_crowded",
        )


def unusable(key_id: str, refusal: AwsAnswer) -> Unavailable:
    """What KMS's refusal of one key means."""
    if refusal.name == "NotFoundException":
        return _lost(key_id)
    if refusal.name == "KMSInvalidStateException":
        return Unavailable(
            f"key {key_id} is pending deletion in AWS KMS; while it is, an administrator of the"
            " account can cancel the deletion and enable the key",
            code="key_lost",
        )
    if refusal.name == "DisabledException":
        return Unavailable(
            f"key {key_id} is disabled in AWS KMS; an administrator of the account can enable it",
            code="key_disabled",
        )
    if refusal.name in {"InvalidKeyUsageException", "UnsupportedOperationException"}:
        return Unavailable(f"alias/{key_id} in AWS KMS leads to no signing key", code="key_damaged")
    return refusal


def _lost(key_id: str) -> Unavailable:
    return Unavailable(
        f"AWS KMS has no alias/{key_id} in this account and region; name the engine that holds"
        " the key, or give the key its alias again",
        code="key_lost",
    )


def _made_at(alias: Mapping[str, Any]) -> datetime:
    made: datetime = alias.get("CreationDate", datetime.min.replace(tzinfo=UTC))
    return made
