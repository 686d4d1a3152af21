"""A CA's key that signs no certificate which breaks the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.lint.check import check_to_be_signed

_Signs = Callable[[bytes], None]


def linting_key(
    key: CertificateIssuerPrivateKeyTypes,
    *,
    issuer_path: Sequence[bytes],
    also: Sequence[_Signs] = (),
) -> CertificateIssuerPrivateKeyTypes:
    """A key for one certificate: `sign` judges the octets it is given by `check_to_be_signed`,
    then by `also`, and only then has the real key sign these very octets.

    For a library's builder, as `kms.engines.stand_in` is. Raises `RuleViolation`
    (`key_not_allowed`) for what is neither RSA nor ECDSA.
    """

    def judge(octets: bytes) -> None:
        signer = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        check_to_be_signed(octets, signer=signer, issuer_path=issuer_path)
        for check in also:
            check(octets)

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _LintingEc(key, judge)
    if isinstance(key, rsa.RSAPrivateKey):
        return _LintingRsa(key, judge)
    raise RuleViolation("keys are RSA or ECDSA", code="key_not_allowed", field="key")


def _for_certificates_only() -> NoReturn:
    raise RuleViolation("this key signs one certificate", code="key_not_usable")


class _Bound:
    """What neither does: it stands for another key while that signs."""

    def private_numbers(self) -> NoReturn:
        _for_certificates_only()

    def private_bytes(self, *_: object, **__: object) -> NoReturn:
        _for_certificates_only()

    def __copy__(self) -> NoReturn:
        _for_certificates_only()

    def __deepcopy__(self, memo: object) -> NoReturn:
        _for_certificates_only()


class _LintingEc(_Bound, ec.EllipticCurvePrivateKey):
    def __init__(self, key: ec.EllipticCurvePrivateKey, judge: _Signs) -> None:
        self._key = key
        self._judge = judge

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        _for_certificates_only()

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        octets = bytes(data)
        self._judge(octets)
        return self._key.sign(octets, signature_algorithm)


class _LintingRsa(_Bound, rsa.RSAPrivateKey):
    def __init__(self, key: rsa.RSAPrivateKey, judge: _Signs) -> None:
        self._key = key
        self._judge = judge

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        _for_certificates_only()

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        padding: padding.AsymmetricPadding,
        algorithm: object,
    ) -> bytes:
        octets = bytes(data)
        self._judge(octets)
        return self._key.sign(octets, padding, algorithm)  # type: ignore[arg-type]
