"""`lamassu-verify`: is a certificate revoked? Answered offline, by a revocation filter.

It needs the certificate, its issuer's, and the files that the platform publishes; no server, no
configuration, no network.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.revocation_filter import RevocationFilter, Verdict, judge, parse_filter
from lamassu.kernel.x509 import signing

EXIT_CODES = {Verdict.GOOD: 0, Verdict.REVOKED: 1, Verdict.NOT_COVERED: 2}
FAULT = 3

app = typer.Typer(add_completion=False)


class _Fault(Exception):
    """What keeps it from an answer, and what to do about it."""


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="The certificate, PEM or DER.")],
    issuer: Annotated[Path, typer.Option(help="The certificate of the CA that issued it.")],
    filter_file: Annotated[
        Path, typer.Option("--filter", help="The CA's filter: http://…/ca/{id}.filter")
    ],
    delta: Annotated[
        Path | None, typer.Option(help="What changed since: http://…/ca/{id}.filter-delta")
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(help="Judge as of then (UTC) and not now.", formats=["%Y-%m-%dT%H:%M:%SZ"]),
    ] = None,
) -> None:
    """Say whether a certificate is good (status 0), revoked (1) or not covered (2).

    Not covered is one that is younger than the filter, or judged after the filter's end: fetch
    the files again, or ask OCSP. Status 3 means that a file cannot be believed.

    Example: lamassu-verify device.crt --issuer ca.crt --filter ca.filter
    """
    now = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    try:
        verdict = _judge(certificate, issuer, filter_file, delta, now)
    except _Fault as fault:
        typer.echo(f"lamassu-verify: {fault}", err=True)
        raise typer.Exit(FAULT) from None
    typer.echo(verdict.value)
    raise typer.Exit(EXIT_CODES[verdict])


def _judge(
    certificate: Path, issuer: Path, filter_file: Path, delta: Path | None, now: datetime
) -> Verdict:
    asked, ca = _certificate(certificate), _certificate(issuer)
    try:
        asked.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise _Fault(f"{certificate} was not issued by {issuer}; name its own issuer") from None
    if now > asked.not_valid_after_utc:
        raise _Fault(f"{certificate} expired on {asked.not_valid_after_utc:%Y-%m-%d}")
    spki = ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    full = _filter(filter_file, spki, issuer)
    if full.facts.base:
        raise _Fault(f"{filter_file} is a delta; give it as --delta, beside its filter")
    changes = None if delta is None else _filter(delta, spki, issuer)
    try:
        return judge(full, asked.serial_number, asked.not_valid_before_utc, now=now, delta=changes)
    except LamassuError as error:
        raise _Fault(f"{delta}: {error.text}; fetch both again") from None


def _filter(path: Path, spki: bytes, issuer: Path) -> RevocationFilter:
    try:
        found = parse_filter(_content(path))
    except LamassuError as error:
        raise _Fault(f"{path}: {error.text}") from None
    if not found.is_of(spki) or not signing.verify(
        load_der_public_key(spki), found.signed, found.signature
    ):
        raise _Fault(f"{path} is not signed by {issuer}; fetch that CA's own filter")
    return found


def _certificate(path: Path) -> x509.Certificate:
    content = _content(path)
    try:
        if content.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(content)
        return x509.load_der_x509_certificate(content)
    except (ValueError, UnsupportedAlgorithm):
        raise _Fault(f"{path} is no certificate in PEM or DER") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Fault(f"{path}: {error.strerror}") from None


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
