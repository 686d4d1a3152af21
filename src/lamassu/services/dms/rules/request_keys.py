"""Names for enrolments: the same request has the same name, so that it is done once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """What makes two requests one (decision 24).

    Keys are compared, not CSR bytes: `spki` is the CSR's public key (DER). The presented
    certificate is named by its verified issuer and serial number. `ca_id` is the CA that is
    to issue, `number` the slot version that the request asks for: the same key may ask for the
    next one later on.
    """

    kind: str  # "enroll" or "reenroll"
    dms_id: str
    ca_id: str
    device_id: str
    spki: bytes
    issuer_sha256: str
    serial_number: str
    number: int

    def key(self, attempt: int) -> str:
        """Hex SHA-256. `attempt` counts up when a certificate of this name was refused."""
        parts = (
            self.kind.encode(),
            self.dms_id.encode(),
            self.ca_id.encode(),
            self.device_id.encode(),
            self.spki,
            self.issuer_sha256.encode(),
            self.serial_number.encode(),
            str(self.number).encode(),
            str(attempt).encode(),
        )
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
        return digest.hexdigest()
