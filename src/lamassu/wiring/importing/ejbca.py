"""An EJBCA: CAs as it exports them, its table `CertificateData` as CSV, its CRLs.

EJBCA Community has no export of everything. What its users have: `ejbca.sh ca exportca` (PKCS#12
of a CA with a soft token), the CA's certificate and newest CRL (`ca getcacert`, `ca getcrl`), and
their own database, of which `CertificateData` tells all of certificates.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lamassu.kernel.errors import LamassuError, Malformed, NotFound
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.rules.adoption import UNREVOKED, FoundCertificate, FoundStatus
from lamassu.wiring.importing.files import (
    authority_of,
    certificates_in,
    crl_number_in,
    passphrase_in,
    pkcs12_in,
    read_file,
)
from lamassu.wiring.importing.material import (
    PAGE,
    Certificates,
    Damaged,
    SourceAuthority,
    damaged,
)
from lamassu.wiring.importing.step_ca import REASONS

_LONGEST_FIELD = 256 * 1024
_NEEDED = ("base64cert", "status", "revocationreason", "revocationdate", "serialnumber")
_REVOKED, _ARCHIVED = 40, 60
_INACTIVE = (0, 10)


@dataclass(frozen=True, slots=True)
class EjbcaFiles:
    """`authorities` are PKCS#12 or certificate files of CAs, `certificates` the table as CSV
    with a header, `crls` the newest CRL of each CA."""

    authorities: Sequence[Path]
    certificates: Path | None = None
    crls: Sequence[Path] = ()
    passphrase_file: Path | None = None
    profile_id: str = ""
    with_key: bool = True


class EjbcaExport:
    """The `Source` of such files."""

    name = "ejbca"

    def __init__(self, files: EjbcaFiles) -> None:
        self._files = files

    async def authorities(self) -> Sequence[SourceAuthority | Damaged]:
        """Every CA that a file has; its key if the file is a PKCS#12 with one."""
        return await asyncio.to_thread(self._authorities)

    def _authorities(self) -> Sequence[SourceAuthority | Damaged]:
        found: dict[bytes, SourceAuthority] = {}
        for path in self._files.authorities:
            for one in self._of_file(path):
                known = found.get(one.found.der)
                if known is None or known.key is None:
                    found[one.found.der] = one
        if not found:
            raise NotFound("name the CAs to take over (--ca FILE)", code="file_missing")
        numbers = dict(crl_number_in(path) for path in self._files.crls)
        return [
            replace(one, last_crl_number=numbers.get(certificate_facts(der).subject_der, 0))
            for der, one in found.items()
        ]

    def _of_file(self, path: Path) -> Sequence[SourceAuthority]:
        data = read_file(path)
        if b"-----BEGIN" in data or path.suffix.casefold() in (".crt", ".cer", ".der", ".pem"):
            return [authority_of(der) for der in certificates_in(path)]
        key, chain = pkcs12_in(path, passphrase_in(self._files.passphrase_file))
        if not chain:
            raise Malformed(f"{path} has no certificate", code="certificate_malformed")
        own = key if self._files.with_key else None
        return [
            authority_of(chain[0], key_pem=own, profile_id=self._files.profile_id),
            *(authority_of(der) for der in chain[1:]),
        ]

    async def count_certificates(self) -> int | None:
        """Not without reading them all."""
        return None

    async def certificates(self) -> Certificates:
        """Of every row of the table."""
        if self._files.certificates is None:
            return
        rows = _rows(self._files.certificates)
        while page := await asyncio.to_thread(lambda: list(itertools.islice(rows, PAGE))):
            yield [_certificate(label, row) for label, row in page]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Rows by column name in lower case: databases differ in the case that they keep."""
    csv.field_size_limit(_LONGEST_FIELD)
    if not path.is_file():
        raise NotFound(f"there is no file {path}", code="file_missing")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        header = [name.strip().casefold() for name in next(reader, [])]
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            raise Malformed(
                f"{path} has no column {', '.join(missing)}: export CertificateData with a header",
                code="export_malformed",
            )
        try:
            for row in reader:
                yield f"{path.name}:{reader.line_num}", dict(zip(header, row, strict=False))
        except csv.Error:
            raise Malformed(
                f"{path}:{reader.line_num} is no CSV", code="export_malformed"
            ) from None


def _certificate(label: str, row: Mapping[str, str]) -> FoundCertificate | Damaged:
    revoked = row.get("status", "") == str(_REVOKED)
    try:
        status = _status(row)
        revoked = status.revoked
        der = base64.b64decode("".join(row["base64cert"].split()), validate=True)
        facts = certificate_facts(der)
        serial_number = serial_hex(int(row["serialnumber"]))
    except LamassuError as error:
        return damaged(label, error, revoked=revoked)
    except (KeyError, ValueError, OverflowError, OSError, binascii.Error):
        return Damaged(label, "row_malformed", "is no whole row of CertificateData", revoked)
    if serial_number != facts.serial_number:
        return Damaged(label, "row_differs", "has the certificate of another row", revoked)
    return FoundCertificate(f"{label} {serial_number}", der, status)


def _status(row: Mapping[str, str]) -> FoundStatus:
    """A revoked certificate is archived once it has ended; its reason still tells. Reasons are
    those of RFC 5280, and -1 for what is not revoked; times are milliseconds."""
    status, reason = int(row["status"]), int(row["revocationreason"] or "-1")
    if status == _REVOKED or (status == _ARCHIVED and reason in REASONS and reason != 8):
        at = int(row["revocationdate"] or "-1")
        return FoundStatus(
            revoked=True,
            at=datetime.fromtimestamp(at / 1000, UTC) if at > 0 else None,
            reason=REASONS.get(reason, REASONS[0]),
        )
    return FoundStatus(inactive=True) if status in _INACTIVE else UNREVOKED
