"""Requests as files carry them."""

from __future__ import annotations

from lamassu.kernel.x509.csr import CertificateRequest, parse_csr
from lamassu.kernel.x509.pem import ders_of


def read_request(content: bytes) -> CertificateRequest:
    """A CSR in PEM or DER; its signature is not verified yet. Raises as `parse_csr`."""
    if not content.lstrip().startswith(b"-----BEGIN"):
        return parse_csr(content)
    label = "NEW CERTIFICATE REQUEST" if b"BEGIN NEW " in content else "CERTIFICATE REQUEST"
    return parse_csr(ders_of(content, label)[0])
