"""How each of our signature schemes is asked of a token, and what a token says that it can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import MGF, Mechanism
from pkcs11.types import Slot

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm
from lamassu.services.kms.engines.pkcs11.functions import Reference, mechanism_reference
from lamassu.services.kms.model import SCHEMES, Padding, SignatureScheme

RSA_SIZES = (2048, 3072, 4096)
CURVES: Mapping[int, str] = {256: "secp256r1", 384: "secp384r1", 521: "secp521r1"}

# what is told of a token that was never reached: what any token for CAs makes
ASSUMED: Mapping[KeyAlgorithm, Sequence[int]] = {
    KeyAlgorithm.RSA: RSA_SIZES,
    KeyAlgorithm.ECDSA: tuple(CURVES),
}

# RFC 8017 §9.2, note 1: the DER of DigestInfo before the digest
DIGEST_INFO: Mapping[str, bytes] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
PSS_PARAMETERS: Mapping[str, tuple[Mechanism, MGF, int]] = {
    "sha256": (Mechanism.SHA256, MGF.SHA256, 32),
    "sha384": (Mechanism.SHA384, MGF.SHA384, 48),
    "sha512": (Mechanism.SHA512, MGF.SHA512, 64),
}

Parameter = tuple[Mechanism, MGF, int] | None
Octets = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One scheme for keys of one size: `prepare` makes the token's input of a digest or message,
    `finish` the signature of its output."""

    mechanism: Mechanism
    parameter: Parameter
    reference: Reference  # both, as the library takes them
    prepare: Octets
    finish: Octets


def _as_it_is(data: bytes) -> bytes:
    return data


def _ecdsa_der(pair: bytes) -> bytes:
    """RFC 3279 §2.2.3 of PKCS #11's r and s side by side."""
    half = len(pair) // 2
    return encode_dss_signature(
        int.from_bytes(pair[:half], "big"), int.from_bytes(pair[half:], "big")
    )


def recipe(scheme: SignatureScheme, size: int) -> Recipe:
    """How a key of `size` bits signs by this scheme."""
    if scheme.hash is None:
        return _recipe(Mechanism.EDDSA, None)
    if scheme.algorithm is KeyAlgorithm.ECDSA:
        # FIPS 186-5 §6.4.1: leftmost bits of a digest longer than the order; not every token cuts
        octets = (size + 7) // 8
        return _recipe(Mechanism.ECDSA, None, lambda digest: digest[:octets], _ecdsa_der)
    name = scheme.hash.name
    if scheme.padding is Padding.PSS:
        return _recipe(Mechanism.RSA_PKCS_PSS, PSS_PARAMETERS[name])
    return _recipe(Mechanism.RSA_PKCS, None, DIGEST_INFO[name].__add__)


def _recipe(
    mechanism: Mechanism,
    parameter: Parameter,
    prepare: Octets = _as_it_is,
    finish: Octets = _as_it_is,
) -> Recipe:
    reference = mechanism_reference(mechanism, parameter)
    return Recipe(mechanism, parameter, reference, prepare, finish)


def recipes(algorithm: KeyAlgorithm, size: int) -> Mapping[str, Recipe]:
    """Every scheme that a key of this kind signs by, by its wire name."""
    return {
        scheme.name: recipe(scheme, size)
        for scheme in SCHEMES.values()
        if scheme.algorithm is algorithm
    }


def supported(slot: Slot) -> Mapping[KeyAlgorithm, Sequence[int]]:
    """What the token in this slot makes and signs with, by its own mechanism list."""
    listed = slot.get_mechanisms()
    found: dict[KeyAlgorithm, Sequence[int]] = {}
    if {Mechanism.RSA_PKCS_KEY_PAIR_GEN, Mechanism.RSA_PKCS} <= listed:
        found[KeyAlgorithm.RSA] = _within(slot, Mechanism.RSA_PKCS_KEY_PAIR_GEN, RSA_SIZES)
    if {Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA} <= listed:
        found[KeyAlgorithm.ECDSA] = _within(slot, Mechanism.EC_KEY_PAIR_GEN, tuple(CURVES))
    if {Mechanism.EC_EDWARDS_KEY_PAIR_GEN, Mechanism.EDDSA} <= listed:
        found[KeyAlgorithm.ED25519] = (256,)
    return {algorithm: sizes for algorithm, sizes in found.items() if sizes}


def _within(slot: Slot, mechanism: Mechanism, sizes: Sequence[int]) -> Sequence[int]:
    try:
        info = slot.get_mechanism_info(mechanism)
    except PKCS11Error:
        return sizes  # it lists the mechanism and will not say more
    # some libraries leave the bounds at 0
    shortest, longest = info.min_key_length or 0, info.max_key_length or max(sizes)
    return tuple(size for size in sizes if shortest <= size <= longest)


def check_makes(
    algorithm: KeyAlgorithm, size: int, can: Mapping[KeyAlgorithm, Sequence[int]]
) -> None:
    """Raise `RuleViolation` (`unsupported_key`) for what the token does not make."""
    if size not in can.get(algorithm, ()):
        makes = "; ".join(f"{name} {', '.join(map(str, sizes))}" for name, sizes in can.items())
        raise RuleViolation(
            f"this token makes no {algorithm} keys of {size} bits; it makes {makes or 'none'}",
            code="unsupported_key",
            field="size",
        )
