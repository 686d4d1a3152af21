"""Keys that go from one token to another, wrapped: what leaves, under what, and what never does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_der_public_key,
)

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.pkcs11.wrapping import check_value, join
from lamassu.services.kms.model import SCHEMES, WrappedKey
from lamassu.services.kms.ports import EngineRefused, WrapsKeys
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.softhsm import BACKUP_KEY, SoftHsm, Token

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
CA = KeyPurpose.CA
COMPONENTS = (bytes(range(32)), bytes(range(100, 132)), b"\x5a" * 32)


@pytest.fixture
def origin(tmp_path: Path) -> Token:
    return _token(tmp_path / "origin")


@pytest.fixture
def spare(tmp_path: Path) -> Token:
    return _token(tmp_path / "spare")


def _token(folder: Path) -> Token:
    try:
        return SoftHsm(folder).token(folder.name)
    except ComponentMissing as missing:
        missing_component(str(missing))


@pytest.mark.parametrize(
    ("spec", "scheme"),
    [
        (P256, "ECDSA_SHA_256"),
        (KeySpec(KeyAlgorithm.ECDSA, 521), "ECDSA_SHA_512"),
        (KeySpec(KeyAlgorithm.RSA, 3072), "RSASSA_PSS_SHA_384"),
    ],
)
def test_a_key_made_in_one_token_signs_in_another(
    origin: Token, spare: Token, spec: KeySpec, scheme: str
) -> None:
    here, there = origin.wrapping_engine(), spare.wrapping_engine()
    value = here.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
    assert there.keep_unwrapping_key(COMPONENTS[::-1]) == value  # in any order
    made = here.generate(spec, purpose=CA)

    wrapped = here.wrap(made.key_id, purpose=CA)
    restored = [there.unwrap(wrapped, purpose=CA) for _ in range(2)]

    assert restored == [made, made]
    assert wrapped.wrapped_under == value == check_value(join(COMPONENTS))
    key = there.private_key(made.key_id, purpose=CA)
    signature = signature_over(key, SCHEMES[scheme], b"message", MessageType.RAW)
    assert signature_holds(made.public_key, SCHEMES[scheme], b"message", MessageType.RAW, signature)
    here.close()
    there.close()


def test_ports_know_it(origin: Token) -> None:
    assert isinstance(origin.wrapping_engine(), WrapsKeys)
    assert not isinstance(origin.engine(), WrapsKeys)


def test_a_key_leaves_only_under_a_key_that_the_security_officer_trusts(origin: Token) -> None:
    engine = origin.wrapping_engine()
    made = engine.generate(P256, purpose=CA)
    origin.tool(
        "--keygen", "--key-type", "AES:32", "--usage-wrap", "--label", BACKUP_KEY, "--id", "aa"
    )

    with pytest.raises(RuleViolation) as raised:
        engine.wrap(made.key_id, purpose=CA)

    assert raised.value.code == "key_not_wrappable"
    [private] = [one for one in origin.objects() if one["object"].startswith("Private")]
    assert "sensitive" in private["Access"]
    assert private["Usage"] == "sign"
    engine.close()


def test_a_key_made_without_backup_in_mind_never_leaves(origin: Token) -> None:
    plain = origin.engine()
    made = plain.generate(P256, purpose=CA)
    plain.close()
    engine = origin.wrapping_engine()
    engine.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())

    with pytest.raises(RuleViolation) as raised:
        engine.wrap(made.key_id, purpose=CA)

    assert raised.value.code == "key_not_wrappable"
    engine.close()


def test_the_backup_key_wraps_here_unwraps_there_and_shows_itself_nowhere(
    origin: Token, spare: Token
) -> None:
    here, there = origin.wrapping_engine(), spare.wrapping_engine()
    here.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
    there.keep_unwrapping_key(COMPONENTS)

    def secret(token: Token) -> dict[str, str]:
        [one] = [one for one in token.objects() if one["object"].startswith("Secret")]
        return one

    assert (secret(origin)["Usage"], secret(spare)["Usage"]) == ("wrap", "unwrap")
    for token in (origin, spare):
        assert "sensitive" in secret(token)["Access"]
        assert "extractable" not in secret(token)["Access"].replace("never extractable", "")
        assert secret(token)["ID"] == check_value(join(COMPONENTS))
    assert "Secret" not in spare.tool("-O", login=False)

    made = here.generate(P256, purpose=CA)
    wrapped = here.wrap(made.key_id, purpose=CA)
    here.delete(made.key_id)
    with pytest.raises(RuleViolation) as one_way:
        here.unwrap(wrapped, purpose=CA)
    kept = there.unwrap(wrapped, purpose=CA)
    with pytest.raises(RuleViolation) as other_way:
        there.wrap(kept.key_id, purpose=CA)
    assert one_way.value.code == other_way.value.code == "backup_key_one_way"
    here.close()
    there.close()


def test_a_token_that_wraps_no_keys_of_a_kind_says_so(origin: Token) -> None:
    engine = origin.wrapping_engine()
    engine.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
    made = engine.generate(KeySpec(KeyAlgorithm.ED25519, 256), purpose=CA)

    with pytest.raises(RuleViolation) as raised:
        engine.wrap(made.key_id, purpose=CA)

    assert raised.value.code == "key_not_wrappable"
    assert "Ed25519" in raised.value.text
    engine.close()


def test_the_wrapped_form_is_rfc_5649_so_that_any_token_can_take_it(origin: Token) -> None:
    engine = origin.wrapping_engine()
    engine.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
    made = engine.generate(P256, purpose=CA)

    wrapped = engine.wrap(made.key_id, purpose=CA)

    clear = aes_key_unwrap_with_padding(join(COMPONENTS), wrapped.content)
    private = load_der_private_key(clear[: 2 + clear[1]], None)  # SoftHSM pads with zeros
    assert private.public_key() == load_der_public_key(made.public_key)
    assert "content" not in repr(wrapped)
    engine.close()


@pytest.mark.parametrize("damage", ["content", "public key", "another key"])
def test_what_is_not_the_key_it_says_it_is_is_not_kept(spare: Token, damage: str) -> None:
    engine = spare.wrapping_engine()
    engine.keep_unwrapping_key(COMPONENTS)
    wrapped = _wrapped(ec.generate_private_key(ec.SECP256R1()))
    other = _wrapped(ec.generate_private_key(ec.SECP256R1()))
    if damage == "content":
        content = wrapped.content[:-1] + bytes([wrapped.content[-1] ^ 1])
        wrapped = dataclasses.replace(wrapped, content=content)
    elif damage == "public key":
        wrapped = dataclasses.replace(wrapped, public_key=other.public_key)
    else:
        wrapped = dataclasses.replace(wrapped, content=other.content)

    with pytest.raises(RuleViolation) as raised:
        engine.unwrap(wrapped, purpose=CA)

    assert raised.value.code == "wrapped_key_invalid"
    assert [one["object"][:6] for one in spare.objects()] == ["Secret"]
    engine.close()


def _wrapped(private: ec.EllipticCurvePrivateKey) -> WrappedKey:
    from hashlib import sha256

    from cryptography.hazmat.primitives.serialization import PublicFormat

    clear = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = join(COMPONENTS)
    return WrappedKey(
        sha256(public).hexdigest(),
        public,
        check_value(value),
        aes_key_wrap_with_padding(value, clear),
    )


def test_a_missing_and_a_differing_backup_key_are_told(origin: Token, spare: Token) -> None:
    here, there = origin.wrapping_engine(), spare.wrapping_engine()
    made = here.generate(P256, purpose=CA)
    with pytest.raises(NotFound) as missing:
        here.wrap(made.key_id, purpose=CA)
    here.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
    other = there.keep_unwrapping_key(COMPONENTS[:2])
    wrapped = here.wrap(made.key_id, purpose=CA)

    with pytest.raises(RuleViolation) as differing:
        there.unwrap(wrapped, purpose=CA)
    with pytest.raises(Conflict) as second:
        there.keep_unwrapping_key(COMPONENTS)

    assert missing.value.code == "backup_key_missing"
    assert differing.value.code == "backup_key_differs"
    assert second.value.code == "backup_key_exists"
    assert other in second.value.text
    here.close()
    there.close()


def test_putting_the_backup_key_in_again_changes_nothing(origin: Token) -> None:
    engine = origin.wrapping_engine()
    values = {
        engine.keep_wrapping_key(COMPONENTS, security_officer_pin=origin.so_pin.encode())
        for _ in range(2)
    }

    assert len(values) == 1
    assert len(origin.objects()) == 1
    engine.check()  # the user is logged in again
    engine.close()


def test_a_wrong_security_officers_pin_is_refused_and_puts_nothing_in(origin: Token) -> None:
    engine = origin.wrapping_engine()
    engine.check()

    with pytest.raises(EngineRefused) as raised:
        engine.keep_wrapping_key(COMPONENTS, security_officer_pin=b"00000000")

    assert raised.value.code == "pin_refused"
    assert origin.objects() == []
    engine.check()
    engine.close()


@pytest.mark.parametrize(
    "components", [(), COMPONENTS[:1], (COMPONENTS[0], b"short"), (COMPONENTS[0], COMPONENTS[0])]
)
def test_a_backup_key_needs_two_different_components(components: tuple[bytes, ...]) -> None:
    with pytest.raises(RuleViolation) as raised:
        join(components)
    assert raised.value.code == "bad_components"


def test_the_check_value_is_what_other_tools_show() -> None:
    value = join(COMPONENTS)
    ecb = Cipher(algorithms.AES(value), modes.ECB()).encryptor()
    assert check_value(value) == ecb.update(bytes(16))[:3].hex()
