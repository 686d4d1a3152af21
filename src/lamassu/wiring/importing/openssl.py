"""A CA as `openssl ca` keeps it: `index.txt`, `newcerts/`, the CA's certificate, its key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lamassu.kernel.errors import LamassuError, Malformed, NotFound
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import serial_hex, serial_int
from lamassu.services.ca.contract import RevocationReason
from lamassu.services.ca.rules.adoption import UNREVOKED, FoundCertificate, FoundStatus
from lamassu.wiring.importing.files import (
    authority_of,
    certificates_in,
    passphrase_in,
    private_key_in,
    read_file,
)
from lamassu.wiring.importing.material import (
    PAGE,
    Certificates,
    Damaged,
    SourceAuthority,
    damaged,
)

_LONGEST_LINE = 8192
_CERTIFICATES = ("cacert.pem", "ca.crt", "ca.pem", "certs/ca.cert.pem", "certs/ca.crt")
_KEYS = ("private/cakey.pem", "private/ca.key.pem", "private/ca.key")
_REASONS = {
    "unspecified": RevocationReason.UNSPECIFIED,
    "keycompromise": RevocationReason.KEY_COMPROMISE,
    "cacompromise": RevocationReason.CA_COMPROMISE,
    "affiliationchanged": RevocationReason.AFFILIATION_CHANGED,
    "superseded": RevocationReason.SUPERSEDED,
    "cessationofoperation": RevocationReason.CESSATION_OF_OPERATION,
    "certificatehold": RevocationReason.CERTIFICATE_HOLD,
    "removefromcrl": RevocationReason.REMOVE_FROM_CRL,
    # with an instruction or a time behind it
    "holdinstruction": RevocationReason.CERTIFICATE_HOLD,
    "keytime": RevocationReason.KEY_COMPROMISE,
    "cakeytime": RevocationReason.CA_COMPROMISE,
}


@dataclass(frozen=True, slots=True)
class OpensslFiles:
    """Where things are; what is not named is looked for where `openssl ca` and the usual
    guides have it. `issuers` are certificates of CAs above, without keys."""

    directory: Path
    certificate: Path | None = None
    key: Path | None = None
    passphrase_file: Path | None = None
    issuers: Sequence[Path] = ()
    ca_id: str = ""
    profile_id: str = ""
    with_key: bool = True


class OpensslDirectory:
    """The `Source` of such a directory."""

    name = "openssl"

    def __init__(self, files: OpensslFiles) -> None:
        self._files = files

    async def authorities(self) -> Sequence[SourceAuthority | Damaged]:
        """The CA, and those above it whose certificates were named."""
        return await asyncio.to_thread(self._authorities)

    def _authorities(self) -> Sequence[SourceAuthority | Damaged]:
        files = self._files
        index = files.directory / "index.txt"
        if not index.is_file():
            raise NotFound(
                f"{files.directory} has no index.txt: name the directory that openssl.cnf calls"
                " dir",
                code="file_missing",
            )
        certificate = files.certificate or self._first(_CERTIFICATES)
        if certificate is None:
            raise NotFound(
                "the CA's certificate is at none of the usual places: name it (--certificate)",
                code="file_missing",
            )
        above = [authority_of(der) for path in files.issuers for der in certificates_in(path)]
        own = authority_of(
            certificates_in(certificate)[0],
            ca_id=files.ca_id,
            key_pem=self._key(),
            profile_id=files.profile_id,
            last_crl_number=self._last_crl_number(),
        )
        return [*above, own]

    def _first(self, names: Sequence[str]) -> Path | None:
        found = (self._files.directory / name for name in names)
        return next((path for path in found if path.is_file()), None)

    def _key(self) -> bytes | None:
        files = self._files
        path = files.key or self._first(_KEYS)
        if path is None or not files.with_key:
            return None
        return private_key_in(path, passphrase_in(files.passphrase_file))

    def _last_crl_number(self) -> int:
        """`crlnumber` has the next one, in hex."""
        path = self._files.directory / "crlnumber"
        if not path.is_file():
            return 0
        text = read_file(path).strip().decode("ascii", "replace")
        try:
            return max(0, serial_int(text) - 1)
        except Malformed:
            raise Malformed(
                f"{path} holds no CRL number: write the next one into it, in hex",
                code="crl_number_malformed",
            ) from None

    async def count_certificates(self) -> int | None:
        return await asyncio.to_thread(self._count)

    def _count(self) -> int:
        with (self._files.directory / "index.txt").open("rb") as index:
            return sum(1 for _ in index)

    async def certificates(self) -> Certificates:
        """As the index lists them, each read from `newcerts/`."""
        lines = _lines(self._files.directory / "index.txt")
        number = 0
        while page := await asyncio.to_thread(self._page, lines, number):
            number += len(page)
            yield page

    def _page(self, lines: Iterator[bytes], number: int) -> Sequence[FoundCertificate | Damaged]:
        page: list[FoundCertificate | Damaged] = []
        for line in lines:
            page.append(self._entry(line, f"index.txt:{number + len(page) + 1}"))
            if len(page) == PAGE:
                break
        return page

    def _entry(self, line: bytes, label: str) -> FoundCertificate | Damaged:
        revoked = line.startswith(b"R")
        try:
            serial_number, status = parse_line(line)
            label = f"{label} {serial_number}"
            der = self._certificate(serial_number)
        except LamassuError as error:
            return damaged(label, error, revoked=revoked)
        if certificate_facts(der).serial_number != serial_number:
            return Damaged(
                label,
                "row_differs",
                "the file of its serial number has another certificate",
                revoked,
            )
        return FoundCertificate(label, der, status)

    def _certificate(self, serial_number: str) -> bytes:
        """`openssl ca` names files by the serial number in upper-case hex of even length."""
        name = f"{serial_number.upper()}.pem"
        try:
            return certificates_in(self._files.directory / "newcerts" / name)[0]
        except NotFound:
            raise NotFound(f"newcerts/{name} is missing", code="certificate_missing") from None


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as index:
        while line := index.readline(_LONGEST_LINE):
            yield line


def parse_line(line: bytes) -> tuple[str, FoundStatus]:
    """Serial number and status of a line of `index.txt`: status, end, revocation, serial number,
    file and subject, between tabs. Raises `Malformed` (`index_malformed`)."""
    try:
        fields = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        kind, _, revocation, serial_number = fields[:4]
        serial_number = serial_hex(serial_int(serial_number))
        if kind in ("V", "E"):
            return serial_number, UNREVOKED
        if kind == "R":
            return serial_number, _revocation(revocation)
    except (ValueError, Malformed):
        pass
    raise Malformed("is no line of an index as openssl writes it", code="index_malformed")


def _revocation(text: str) -> FoundStatus:
    time, _, rest = text.partition(",")
    reason = rest.partition(",")[0].casefold()
    if reason and reason not in _REASONS:
        # what it was revoked for is not worth losing that it was
        reason = "unspecified"
    return FoundStatus(revoked=True, at=parse_time(time), reason=_REASONS[reason or "unspecified"])


def parse_time(text: str) -> datetime:
    """A UTCTime or GeneralizedTime. Raises `ValueError`."""
    if len(text) == 13:  # RFC 5280 §4.1.2.5.1: up to 49 is of this century
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
