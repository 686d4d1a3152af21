"""What the KMS's routes take and answer."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

from lamassu.platform.http import WireModel
from lamassu.platform.http.wire import FreeForm, WireBase64
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec, MessageType
from lamassu.services.kms.model import ImportedKey, NewKey
from lamassu.services.kms.usecases.sign_message import Message
from lamassu.services.kms.wire import MISSING


class CreateKey(WireModel):
    """A key to make."""

    missing_text = MISSING

    algorithm: KeyAlgorithm
    size: int
    name: str
    engine_id: str = ""
    tags: list[str] = Field(default_factory=list)
    metadata: FreeForm = Field(default_factory=dict)

    def as_key(self) -> NewKey:
        """The key as the use cases take it."""
        return NewKey(
            spec=KeySpec(self.algorithm, self.size),
            name=self.name,
            engine_id=self.engine_id or None,
            tags=self.tags,
            metadata=self.metadata,
        )


class ImportKey(WireModel):
    """A private key to keep: base64 of its PEM, PKCS #8, PKCS #1 or SEC 1, not encrypted."""

    missing_text = MISSING

    private_key: WireBase64 = Field(repr=False)
    engine_id: str = ""
    name: str = ""
    tags: list[str] = Field(default_factory=list)
    metadata: FreeForm = Field(default_factory=dict)

    def as_key(self) -> ImportedKey:
        """The key as the use cases take it."""
        return ImportedKey(
            private_key=self.private_key,
            name=self.name,
            engine_id=self.engine_id or None,
            tags=self.tags,
            metadata=self.metadata,
        )


class SignMessage(WireModel):
    """A message to sign, or its digest."""

    missing_text = MISSING

    algorithm: str
    message: WireBase64
    message_type: MessageType

    def as_message(self) -> Message:
        """The message as the use cases take it."""
        return Message(self.message, self.message_type, self.algorithm)


class VerifyMessage(SignMessage):
    """A message and the signature that it is said to have."""

    signature: WireBase64


class PutName(WireModel):
    """A key's new name."""

    missing_text = MISSING

    name: str


class PutTags(WireModel):
    """All of a key's tags from now on."""

    missing_text = MISSING

    tags: list[str]


class KeyAnswer(BaseModel):
    """A key, without anything secret. `origin` is generated, imported or adopted."""

    pkcs11_uri: str
    key_id: str
    name: str
    aliases: list[str]
    engine_id: str
    has_private_key: bool
    algorithm: str
    size: int
    public_key: str
    creation_ts: str
    tags: list[str]
    metadata: dict[str, JsonValue]
    origin: str


class KeyPage(BaseModel):
    """A page of keys; `next` is the bookmark of the page after it, or empty."""

    next: str
    list: list[KeyAnswer]


class StatsAnswer(BaseModel):
    """How many keys there are, in all, by engine and by algorithm."""

    total_keys: int
    keys_distribution_per_engine: dict[str, int]
    keys_distribution_per_algorithm: dict[str, int]


class SignatureAnswer(BaseModel):
    """A signature."""

    signature: WireBase64


class ValidAnswer(BaseModel):
    """Whether a signature is right."""

    valid: bool


class StatusAnswer(BaseModel):
    """What became of it."""

    status: str
