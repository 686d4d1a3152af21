"""A device, as it would behave: a key, requests, and patience."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from tests.support.server import Server


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(common_name: str, organization: str = "YourOrg") -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        ]
    )


def make_csr(key: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    """A PKCS#10 request, DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@dataclass
class Credential:
    """A certificate and its key, also as files (curl and ssl want those)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_path: Path
    key_path: Path

    @classmethod
    def store(
        cls,
        folder: Path,
        label: str,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
    ) -> Credential:
        folder.mkdir(parents=True, exist_ok=True)
        certificate_path, key_path = folder / f"{label}.crt", folder / f"{label}.key"
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cls(certificate, key, certificate_path, key_path)

    @property
    def serial_number(self) -> str:
        text = f"{self.certificate.serial_number:x}"
        return text if len(text) % 2 == 0 else "0" + text


def bootstrap(
    server: Server,
    folder: Path,
    label: str,
    *,
    ca: str = "bootstrap-ca",
    profile: str = "bootstrap-profile",
) -> Credential:
    """A bootstrap certificate, issued by the admin over the API."""
    key = new_key()
    pem = x509.load_der_x509_csr(make_csr(key, label)).public_bytes(serialization.Encoding.PEM)
    with server.admin() as admin:
        answer = admin.post(
            f"/api/ca/v1/cas/{ca}/certificates/sign",
            json={"csr": base64.b64encode(pem).decode(), "profile_id": profile},
        )
    assert answer.status_code == 201, answer.text
    certificate = x509.load_pem_x509_certificate(base64.b64decode(answer.json()["certificate"]))
    return Credential.store(folder, label, certificate, key)


def make_dms(
    server: Server, dms_id: str, *, profile: str = "device-profile", **settings: object
) -> None:
    """A DMS in the original's spelling: JITP, client certificates of the bootstrap CA."""
    enrollment: dict[str, object] = {
        "protocol": "EST_RFC7030",
        "registration_mode": "JITP",
        "enrollment_ca": "manufacturing-ca",
        "verify_csr_signature": True,
        "device_provisioning_profile": {"icon": "i", "icon_color": "#112233"},
        "est_rfc7030_settings": {
            "auth_mode": "CLIENT_CERTIFICATE",
            "client_certificate_settings": {"validation_cas": ["bootstrap-ca"]},
        },
    }
    enrollment.update(settings)
    with server.admin() as admin:
        answer = admin.post(
            "/api/dmsmanager/v1/dms",
            json={
                "id": dms_id,
                "name": dms_id,
                "settings": {
                    "enrollment_settings": enrollment,
                    # So wide that a fresh certificate can be renewed at once.
                    "reenrollment_settings": {"reenrollment_delta": "10000d"},
                    "issuance_profile_id": profile,
                },
            },
        )
    assert answer.status_code == 201, answer.text


@dataclass
class Device:
    """A device that enrolls and re-enrolls, retrying as a real one would."""

    server: Server
    dms: str
    id: str
    folder: Path
    bootstrap: Credential
    identity: Credential | None = None
    received: list[x509.Certificate] = field(default_factory=list)

    def post(self, operation: str, csr: bytes, credential: Credential | None) -> httpx.Response:
        """One EST request over a new connection."""
        context = ssl.create_default_context(cafile=str(self.server.directory / "tls-ca.crt"))
        if credential is not None:
            context.load_cert_chain(credential.certificate_path, credential.key_path)
        with httpx.Client(base_url=self.server.url, verify=context, timeout=15) as client:
            return client.post(
                f"/.well-known/est/{self.dms}/{operation}",
                content=base64.b64encode(csr),
                headers={"Content-Type": "application/pkcs10"},
            )

    def enroll(self, key: ec.EllipticCurvePrivateKey | None = None) -> httpx.Response:
        """`simpleenroll` with the bootstrap certificate; keeps what it gets."""
        key = key or new_key()
        return self._keep(self.post("simpleenroll", make_csr(key, self.id), self.bootstrap), key)

    def reenroll(self, key: ec.EllipticCurvePrivateKey | None = None) -> httpx.Response:
        """`simplereenroll` with the present identity; keeps what it gets."""
        assert self.identity is not None
        key = key or self.identity.key
        return self._keep(self.post("simplereenroll", make_csr(key, self.id), self.identity), key)

    def _keep(self, answer: httpx.Response, key: ec.EllipticCurvePrivateKey) -> httpx.Response:
        if answer.status_code == 200:
            [certificate, *_] = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))
            self.received.append(certificate)
            self.identity = Credential.store(
                self.folder, f"{self.id}-{len(self.received)}", certificate, key
            )
        return answer
