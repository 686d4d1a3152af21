"""Routes of what comes from elsewhere, and of certificates whose key the platform makes."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, ClassVar

from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.http import Access, Call, Creation, Route, WireModel, json_answer
from lamassu.platform.http.wire import FreeForm, WireBase64
from lamassu.services.ca.http.answers import CaAnswer, CertificateAnswer
from lamassu.services.ca.http.bodies import MISSING
from lamassu.services.ca.http.encoding import Encoder
from lamassu.services.ca.http.profile_bodies import ProfileBody, SubjectBody, inline_profile
from lamassu.services.ca.rules.imported import BroughtCa
from lamassu.services.ca.rules.subject_keys import CertificateOrder, SubjectKey
from lamassu.services.ca.usecases import CaService

_NO_CERTIFICATE = "missing cert block: send the base64 of one certificate, in PEM or DER"


def _read_certificate(value: object) -> object:
    if isinstance(value, bytes):
        return value
    try:
        content = base64.b64decode("".join(str(value).split()), validate=True)
        ders = ders_of(content) if b"-----BEGIN" in content else [content]
    except (binascii.Error, ValueError, Malformed):
        ders = []
    if len(ders) != 1 or not ders[0].startswith(b"\x30"):
        raise PydanticCustomError("invalid_pem", "{text}", {"text": _NO_CERTIFICATE})
    return ders[0]


BroughtCertificate = Annotated[
    bytes,
    BeforeValidator(_read_certificate),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""A certificate: DER inside; on the wire base64 of PEM, as the original has it, or of DER."""


class ImportCaBody(WireModel):
    """A CA that was made elsewhere.

    `private_key` is base64 of the key in PEM or DER, not encrypted (PKCS #8, PKCS #1, SEC 1).
    `pkcs12`, ours, is base64 of a file that `password` opens, with the certificate and perhaps
    its key.
    """

    leftovers: ClassVar[frozenset[str]] = frozenset(
        {"engine_id", "parent_id", "ca_request_id", "ca_chain", "ca_type"}
    )

    id: str = ""
    ca: BroughtCertificate | None = None
    private_key: WireBase64 = Field(default=b"", repr=False)
    pkcs12: WireBase64 = Field(default=b"", repr=False)
    password: str = Field(default="", max_length=1024, repr=False)
    profile_id: str = ""

    def value(self) -> BroughtCa:
        return BroughtCa(
            id=self.id,
            profile_id=self.profile_id,
            certificate=self.ca,
            private_key=self.private_key or None,
            pkcs12=self.pkcs12 or None,
            password=self.password,
        )


class ImportCertificateBody(WireModel):
    """A certificate that was issued elsewhere."""

    certificate: BroughtCertificate
    metadata: FreeForm = Field(default_factory=dict)


class KeySpecBody(WireModel):
    """A key to make, or one of the KMS."""

    type: str = ""
    bits: int = 0
    engine_id: str = ""
    key_identifier: str = Field(default="", max_length=1024)


class CreateCertificateBody(WireModel):
    """A certificate for a key of the platform's."""

    missing_text = MISSING

    ca_id: str
    key_spec: KeySpecBody
    subject: SubjectBody
    issuance_profile: ProfileBody | None = Field(
        None, validation_alias=AliasChoices("issuance_profile", "profile")
    )
    issuance_profile_id: str = Field(
        "", validation_alias=AliasChoices("issuance_profile_id", "profile_id")
    )
    metadata: FreeForm = Field(default_factory=dict)


def import_routes(service: CaService) -> list[Route]:
    """Imports, and certificates with a key of the platform's."""
    handlers = _Handlers(service)
    return [
        Route(
            method="POST",
            path="/v1/cas/import",
            access=Access.action("ca:import"),
            handler=handlers.import_ca,
            summary="Take in a CA that was made elsewhere",
            description="With its private key (private_key, or pkcs12 and password), with a key "
            "of a CA that the KMS has, or without key. It stands below the CA whose key signed "
            "it, and above those that it signed. Nothing is stored of one that is refused.",
            body=ImportCaBody,
            answer=CaAnswer,
            status=201,
            creates=[Creation("ca.import", CaAnswer)],
        ),
        Route(
            method="POST",
            path="/v1/certificates/import",
            access=Access.action("certificate:import"),
            handler=handlers.import_certificate,
            summary="Keep a certificate that was issued elsewhere",
            description="It is a CA's here only if that CA's key signed it.",
            body=ImportCertificateBody,
            answer=CertificateAnswer,
            status=201,
            creates=[Creation("certificate.import", CertificateAnswer)],
        ),
        Route(
            method="POST",
            path="/v1/certificates",
            access=Access.action("certificate:issue"),
            handler=handlers.create,
            summary="Make a key and its certificate",
            description="The key is made in the KMS (key_spec.type and bits), or is a general "
            "one there (key_spec.key_identifier) that never signed by the API; it cannot be "
            "deleted while the certificate is there. Under the profile in the body, else the "
            "one named, else the CA's default.",
            body=CreateCertificateBody,
            answer=CertificateAnswer,
            status=201,
            creates=[Creation("ca.sign.certificate", CertificateAnswer)],
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def import_ca(self, call: Call) -> Response:
        brought = call.decoded(ImportCaBody).value()
        authority = await self._service.import_ca(brought, caller=call.caller)
        return json_answer(Encoder(self._service).ca(authority), status=201)

    async def import_certificate(self, call: Call) -> Response:
        body = call.decoded(ImportCertificateBody)
        certificate = await self._service.import_certificate(
            body.certificate, body.metadata, caller=call.caller
        )
        return json_answer(Encoder(self._service).certificate(certificate), status=201)

    async def create(self, call: Call) -> Response:
        body = call.decoded(CreateCertificateBody)
        key = body.key_spec
        certificate = await self._service.create_certificate(
            CertificateOrder(
                ca_id=body.ca_id,
                key=SubjectKey(key.type, key.bits, key.engine_id, key.key_identifier),
                subject=body.subject.value(),
                caller=call.caller,
                profile=inline_profile(body.issuance_profile),
                profile_id=body.issuance_profile_id or None,
                metadata=body.metadata,
            )
        )
        return json_answer(Encoder(self._service).certificate(certificate), status=201)
