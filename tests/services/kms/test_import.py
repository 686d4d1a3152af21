"""Private keys that callers send: which are kept, which refused, and that none is told on."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
from collections.abc import Callable
from functools import cache

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.x509.keys import key_id
from lamassu.services.kms.contract import Binding, Key, KeyOrigin, KeyPurpose
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.http.bodies import ImportKey
from lamassu.services.kms.model import ImportedKey, PrivateKey
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService, private_keys
from lamassu.services.kms.usecases.private_keys import check_private_key, spki_of

from .conftest import ALICE, MakeKey, Records
from .test_api import b64, sign_body

CLEAR = NoEncryption()
LOCKED = BestAvailableEncryption(b"a passphrase")
Kept = Callable[[], int]


def pem(
    key: PrivateKey | ed448.Ed448PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = CLEAR,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption)


@cache
def rsa_key(size: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=exponent, key_size=size)


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


@pytest.fixture
def kept(engine: SoftwareEngine) -> Kept:
    """How many keys the engine has."""
    return lambda: len(list(engine._keystore.files()))


def body(private_key: bytes, **more: object) -> dict[str, object]:
    return {"private_key": b64(private_key), "name": "sent", **more}


@pytest.mark.parametrize(
    ("make", "form", "algorithm", "size", "scheme"),
    [
        (rsa_key, PrivateFormat.PKCS8, "RSA", 2048, "RSASSA_PSS_SHA_256"),
        (rsa_key, PrivateFormat.TraditionalOpenSSL, "RSA", 2048, "RSASSA_PKCS1_V1_5_SHA_512"),
        (ec_key, PrivateFormat.PKCS8, "ECDSA", 256, "ECDSA_SHA_256"),
        (ec_key, PrivateFormat.TraditionalOpenSSL, "ECDSA", 256, "ECDSA_SHA_256"),
        (lambda: ec_key(ec.SECP384R1()), PrivateFormat.PKCS8, "ECDSA", 384, "ECDSA_SHA_384"),
        (lambda: ec_key(ec.SECP521R1()), PrivateFormat.PKCS8, "ECDSA", 521, "ECDSA_SHA_512"),
        (ed25519.Ed25519PrivateKey.generate, PrivateFormat.PKCS8, "Ed25519", 256, "ED25519"),
        (mldsa.MLDSA44PrivateKey.generate, PrivateFormat.PKCS8, "ML-DSA", 44, "ML_DSA_44"),
        (mldsa.MLDSA65PrivateKey.generate, PrivateFormat.PKCS8, "ML-DSA", 65, "ML_DSA_65"),
        (mldsa.MLDSA87PrivateKey.generate, PrivateFormat.PKCS8, "ML-DSA", 87, "ML_DSA_87"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_sent_key_is_kept_signs_and_is_told_apart(
    api: httpx.AsyncClient,
    kms: KmsService,
    make: Callable[[], PrivateKey],
    form: PrivateFormat,
    algorithm: str,
    size: int,
    scheme: str,
) -> None:
    private_key = make()
    answer = await api.post(
        "/v1/keys/import",
        json=body(pem(private_key, form), tags=["old"], metadata={"from": "elsewhere"}),
    )

    assert answer.status_code == 201, answer.text
    key = answer.json()
    shown = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64decode(key["public_key"]) == shown
    assert (key["algorithm"], key["size"], key["engine_id"]) == (algorithm, size, "software")
    assert (key["tags"], key["metadata"]) == (["old"], {"from": "elsewhere"})
    assert (key["has_private_key"], key["origin"]) == (True, "imported")
    one = f"/v1/keys/{key['key_id']}"
    assert (await api.get(one)).json() == key
    stored = await kms.find(key["key_id"])
    assert stored is not None
    assert (stored.purpose, stored.origin) == (KeyPurpose.GENERAL, KeyOrigin.IMPORTED)
    message = sign_body(b"message", "raw", scheme)
    signed = (await api.post(f"{one}/sign", json=message)).json()
    assert (await api.post(f"{one}/verify", json=message | signed)).json() == {"valid": True}
    assert (await api.delete(one)).status_code == 200


async def test_what_openssl_writes_before_a_key_is_passed_over(api: httpx.AsyncClient) -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    sent = parameters + pem(ec_key(), PrivateFormat.TraditionalOpenSSL)

    answer = await api.post("/v1/keys/import", json=body(sent, name=""))

    assert (answer.status_code, answer.json()["name"]) == (201, "")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
async def test_a_key_is_taken_in_der_too(api: httpx.AsyncClient, form: PrivateFormat) -> None:
    key = ec_key()

    answer = await api.post(
        "/v1/keys/import", json=body(key.private_bytes(Encoding.DER, form, CLEAR))
    )

    assert answer.status_code == 201, answer.text
    assert answer.json()["key_id"] == key_id(spki_of(key))


def near_primes() -> bytes:
    """An RSA key whose primes differ in their lower half only: Fermat factors it at once."""
    p = rsa_key().private_numbers().p
    q = p + 2
    while not _is_prime(q):
        q += 2
    n, e = p * q, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, n)
    )
    return pem(numbers.private_key(unsafe_skip_rsa_key_validation=True))


def _is_prime(number: int) -> bool:
    return all(number % small for small in range(3, 2000, 2)) and all(
        pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)
    )


def strange_parts() -> bytes:
    """A private exponent that is not the key's."""
    one = rsa_key().private_numbers()
    mixed = rsa.RSAPrivateNumbers(
        one.p, one.q, one.d + 2, one.dmp1 + 2, one.dmq1 + 2, one.iqmp, one.public_numbers
    )
    return pem(mixed.private_key(unsafe_skip_rsa_key_validation=True))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "RSA 1024": (lambda: pem(rsa_key(1024)), "unsupported_key"),
    "RSA 3 as exponent": (lambda: pem(rsa_key(2048, 3)), "weak_key"),
    "RSA with near primes": (near_primes, "weak_key"),
    "RSA with strange parts": (strange_parts, "weak_key"),
    "P-224": (lambda: pem(ec_key(ec.SECP224R1())), "unsupported_key"),
    "secp256k1": (lambda: pem(ec_key(ec.SECP256K1())), "unsupported_key"),
    "Ed448": (lambda: pem(ed448.Ed448PrivateKey.generate()), "unsupported_key"),
    "encrypted PKCS #8": (
        lambda: pem(ec_key(), PrivateFormat.PKCS8, LOCKED),
        "private_key_encrypted",
    ),
    "encrypted SEC 1": (
        lambda: pem(ec_key(), PrivateFormat.TraditionalOpenSSL, LOCKED),
        "private_key_encrypted",
    ),
    "no PEM": (lambda: b"not PEM at all", "private_key_malformed"),
    "empty": (lambda: b"", "private_key_malformed"),
    "encrypted DER": (
        lambda: ec_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, LOCKED),
        "private_key_encrypted",
    ),
    "a public key in DER": (
        lambda: ec_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "private_key_malformed",
    ),
    "two keys": (lambda: pem(ec_key()) + pem(ec_key()), "private_key_malformed"),
    "a public key": (
        lambda: ec_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "private_key_malformed",
    ),
    "a broken block": (lambda: pem(ec_key()).replace(b"M", b"A", 3), "private_key_malformed"),
    "cut off": (lambda: pem(ec_key())[:120], "private_key_malformed"),
    "too long": (lambda: pem(ec_key()) + b"\n" * 20_000, "private_key_malformed"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_key_leaves_nothing(
    api: httpx.AsyncClient, records: Records, kept: Kept, case: str
) -> None:
    make, code = REFUSED[case]
    sent = make()
    before = kept()

    answer = await api.post("/v1/keys/import", json=body(sent))

    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert answer.json()["field"] == "private_key"
    assert (kept(), await records()) == (before, [])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"private_key": None}, "missing_field"),
        ({"private_key": "%%%"}, "invalid_base64"),
        ({"private_key": 7}, "invalid_base64"),
        ({"engine_id": "hsm"}, "unknown_engine"),
        ({"name": "a\x00b"}, None),
        ({"name": "x" * 300}, "bad_name"),
        ({"tags": [""]}, "bad_tags"),
        ({"metadata": [1]}, "wrong_type"),
        ({"purpose": "ca"}, "unknown_field"),
        ({"passphrase": "secret"}, "unknown_field"),
    ],
)
async def test_a_wrong_body_imports_nothing(
    api: httpx.AsyncClient,
    records: Records,
    kept: Kept,
    change: dict[str, object],
    code: str | None,
) -> None:
    before = kept()

    answer = await api.post("/v1/keys/import", json=body(pem(ec_key())) | change)

    assert answer.status_code == 400, answer.text
    assert code in (None, answer.json()["code"])
    assert (kept(), await records()) == (before, [])


async def test_a_key_that_is_here_is_a_conflict_and_stays_as_it_is(
    api: httpx.AsyncClient, kms: KmsService, records: Records, kept: Kept
) -> None:
    sent = body(pem(ec_key()))
    key = (await api.post("/v1/keys/import", json=sent)).json()
    before = (kept(), await records())

    answer = await api.post("/v1/keys/import", json=sent | {"name": "again"})

    assert (answer.status_code, answer.json()["code"]) == (409, "key_exists")
    assert (kept(), await records()) == before
    assert (await api.get(f"/v1/keys/{key['key_id']}")).json() == key
    assert (await api.post(f"/v1/keys/{key['key_id']}/sign", json=sign_body(b"m"))).is_success


async def test_of_two_imports_at_once_one_is_kept(api: httpx.AsyncClient, kept: Kept) -> None:
    sent = body(pem(ec_key()))
    before = kept()

    answers = await asyncio.gather(*(api.post("/v1/keys/import", json=sent) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert kept() == before + 1


@pytest.mark.parametrize("purpose", [KeyPurpose.PLATFORM, KeyPurpose.CA, KeyPurpose.RESPONDER])
async def test_no_import_takes_over_a_key_of_the_platforms(
    api: httpx.AsyncClient, make_key: MakeKey, engine: SoftwareEngine, purpose: KeyPurpose
) -> None:
    key = await make_key(purpose)
    sent = pem(engine.take_out(key.key_id, purpose=purpose))

    answer = await api.post("/v1/keys/import", json=body(sent))

    assert answer.status_code == 409
    assert engine.private_key(key.key_id, purpose=purpose)


async def test_an_engine_whose_keys_are_its_own_takes_none(
    storage: KmsStorage, engine: SoftwareEngine, records: Records
) -> None:
    class Closed:
        """What an engine has without `TakesInKeys`."""

        limits = engine.limits
        facts, generate, private_key = engine.facts, engine.generate, engine.private_key
        delete, check, close = engine.delete, engine.check, engine.close

    kms = KmsService(
        engines=[Closed()], default_engine_id="software", storage=storage, clock=SystemClock()
    )
    with pytest.raises(RuleViolation, match="takes no keys made elsewhere") as refusal:
        await kms.import_named(ImportedKey(pem(ec_key())), caller=ALICE)
    assert refusal.value.code == "key_not_importable"
    assert await records() == []


async def test_a_sent_key_is_nowhere_but_in_its_engine(
    api: httpx.AsyncClient, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    private_key = ec_key()
    secret = private_key.private_numbers().private_value
    lines = pem(private_key).decode().splitlines()[1:-1]

    answer = await api.post("/v1/keys/import", json=body(pem(private_key)))
    again = await api.post("/v1/keys/import", json=body(pem(private_key)))
    wrong = await api.post("/v1/keys/import", json=body(pem(private_key) + pem(private_key)))

    told = [*(text for record in await records() for text in record), caplog.text]
    told += [answer.text, again.text, wrong.text]
    everything = "\n".join(told)
    for clue in (*lines, f"{secret:x}", str(secret), b64(pem(private_key))[:64]):
        assert clue not in everything
    told_of = [(kind, type_) for kind, type_, _ in await records()]
    assert sorted(told_of) == [("audit", "kms.import"), ("event", "kms.import")]


def test_a_private_key_is_not_in_what_its_value_says_of_itself() -> None:
    sent = pem(ec_key())
    as_sent = ImportKey(private_key=sent)
    for value in (ImportedKey(sent), as_sent, as_sent.as_key()):
        assert "PRIVATE" not in repr(value)
        assert "PRIVATE" not in str(value)
    assert dataclasses.is_dataclass(as_sent.as_key())


def test_the_fingerprint_of_roca_is_known() -> None:
    def roca_like(start: int) -> int:
        product = 2
        for prime in private_keys._ROCA:
            product *= prime
        return start * product + pow(65537, start, product)

    assert private_keys._has_roca_fingerprint(roca_like(12345) * roca_like(98765))
    assert not private_keys._has_roca_fingerprint(rsa_key().public_key().public_numbers().n)
    check_private_key(rsa_key())
    with pytest.raises(RuleViolation):
        check_private_key(rsa_key(2048, 3))


async def taken_for_a_ca(
    kms: KmsService, key: PrivateKey, *, public: PrivateKey | None = None
) -> Key:
    return await kms.take_in(
        pem(key),
        public_key=spki_of(public or key),
        purpose=KeyPurpose.CA,
        name="ca/brought",
        caller=ALICE,
    )


async def test_a_slice_brings_a_key_for_a_purpose_and_may_ask_again(
    kms: KmsService, kept: Kept
) -> None:
    sent, before = ec_key(), kept()

    key = await taken_for_a_ca(kms, sent)

    assert (key.purpose, key.origin, key.name) == (KeyPurpose.CA, KeyOrigin.IMPORTED, "ca/brought")
    assert await taken_for_a_ca(kms, sent) == key
    await kms.bind(key.key_id, Binding("certificate", "01"), caller=ALICE)
    with pytest.raises(Conflict, match="here already"):
        await taken_for_a_ca(kms, sent)
    assert kept() == before + 1


async def test_a_key_of_another_pair_or_purpose_is_not_brought(
    kms: KmsService, kept: Kept, records: Records
) -> None:
    general = ec_key()
    await kms.import_named(ImportedKey(pem(general)), caller=ALICE)
    before = (kept(), await records())

    with pytest.raises(RuleViolation, match="does not match") as refusal:
        await taken_for_a_ca(kms, ec_key(), public=ec_key())
    assert refusal.value.code == "key_mismatch"
    with pytest.raises(Conflict, match="as a general key"):
        await taken_for_a_ca(kms, general)
    assert (kept(), await records()) == before


async def test_production_brings_no_key_of_a_ca_into_software(
    kms: KmsService, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kms, "production", True)
    before = kept()

    with pytest.raises(RuleViolation, match="software gets no keys of CAs in production") as no:
        await taken_for_a_ca(kms, ec_key())
    assert (no.value.code, kept()) == ("no_engine_for_key", before)
