"""The CSR as the edge handed it over: its fault counts only now that the peer was judged."""

from __future__ import annotations

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509.csr import CertificateRequest, parse_csr, verify_csr_signature
from lamassu.services.dms.contract import CsrPayload


def read_csr(payload: CsrPayload) -> CertificateRequest:
    """The CSR, parsed within bounds and its signature verified.

    Raises `Malformed` or `RuleViolation`.
    """
    if payload.fault_text:
        raise Malformed(
            payload.fault_text,
            code=payload.fault_code or None,
            field=payload.fault_field or None,
        )
    csr = parse_csr(payload.der)
    verify_csr_signature(csr)
    return csr
