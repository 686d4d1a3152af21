"""What every crypto engine promises, on its real component."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.x509.keys import key_facts, key_id
from lamassu.platform.database import Database, Dialect
from lamassu.services.kms.contract import (
    KeyAlgorithm,
    KeyOrigin,
    KeyPurpose,
    KeySpec,
    MessageType,
)
from lamassu.services.kms.model import SCHEMES, ImportedKey, MadeKey, NewKey, SignatureScheme
from lamassu.services.kms.ports import CryptoEngine, GivesOutKeys, TakesInKeys
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.adopt_keys import Adopting
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.sign_message import Message
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from lamassu.services.kms.wire import EngineAnswer
from tests.support.databases import DatabaseFactory, Templates
from tests.support.engines import KINDS, ComponentMissing, Stand
from tests.support.missing import missing_component

ALICE = Caller(Principal(PrincipalKind.ADMIN, "alice"), "request-1")
P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
RSA_2048 = KeySpec(KeyAlgorithm.RSA, 2048)
SPECS = (
    *(KeySpec(KeyAlgorithm.RSA, size) for size in (2048, 3072, 4096)),
    *(KeySpec(KeyAlgorithm.ECDSA, size) for size in (256, 384, 521)),
    KeySpec(KeyAlgorithm.ED25519, 256),
    *(KeySpec(KeyAlgorithm.ML_DSA, size) for size in (44, 65, 87)),
)
MUST = SPECS[:6]  # what every engine makes
MESSAGE = b"to be signed"


@dataclass
class Bench:
    """One kind's engine for the whole run, with a key of each spec, made when first asked."""

    stand: Stand
    engine: CryptoEngine
    made: dict[KeySpec, MadeKey] = field(default_factory=dict)

    def makes(self, spec: KeySpec) -> bool:
        return spec.size in self.engine.facts().supported.get(spec.algorithm, ())

    def key(self, spec: KeySpec) -> MadeKey:
        if spec not in self.made:
            self.made[spec] = self.engine.generate(spec, purpose=KeyPurpose.GENERAL)
        return self.made[spec]


@pytest.fixture(scope="module", params=list(KINDS))
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp(request.param)
    try:
        opened = KINDS[request.param](folder)
        stand = opened.__enter__()
    except ComponentMissing as missing:
        missing_component(str(missing))
    try:
        engine = stand.engine()
        engine.check()
        yield Bench(stand, engine)
        engine.close()
    finally:
        opened.__exit__(None, None, None)


@pytest.fixture
async def kms(
    bench: Bench, database_templates: Templates, tmp_path: Path
) -> AsyncIterator[KmsService]:
    """A KMS over this engine; its rows are on SQLite, which is not what is tested here."""
    factory = DatabaseFactory(Dialect.SQLITE, database_templates, tmp_path)
    database: Database = await factory(services=["kms"])
    engine = bench.stand.engine()
    yield KmsService(
        engines=[engine],
        default_engine_id=engine.facts().id,
        storage=KmsStorage(database),
        clock=SystemClock(),
    )
    engine.close()
    await factory.close()


def sign(engine: CryptoEngine, key_id: str, scheme: str) -> bytes:
    """Over `MESSAGE`, with a key of general purpose."""
    key = engine.private_key(key_id, purpose=KeyPurpose.GENERAL)
    return signature_over(key, SCHEMES[scheme], MESSAGE, MessageType.RAW)


def need(bench: Bench, spec: KeySpec) -> None:
    """What an engine cannot make is told by its facts; what it must make it says it makes."""
    if spec in MUST:
        assert bench.makes(spec)
    elif not bench.makes(spec):
        pytest.skip(f"this engine makes no {spec.algorithm}-{spec.size}")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.algorithm}-{spec.size}")
def test_a_made_key_is_what_was_asked_and_named_by_its_public_key(
    bench: Bench, spec: KeySpec
) -> None:
    need(bench, spec)

    made = bench.key(spec)

    assert made.key_id == key_id(made.public_key)
    facts = key_facts(made.public_key)
    if spec.algorithm is not KeyAlgorithm.ML_DSA:
        assert (facts.algorithm, facts.size) == (spec.algorithm.value, spec.size)
    if spec.algorithm is KeyAlgorithm.RSA:
        assert facts.exponent == 65537
    again = bench.stand.engine()
    stand_in = again.private_key(made.key_id, purpose=KeyPurpose.GENERAL)
    assert stand_in.public_key() == load_der_public_key(made.public_key)
    again.close()


def matrix() -> Iterator[tuple[KeySpec, SignatureScheme, MessageType]]:
    for spec in SPECS:
        for scheme in SCHEMES.values():
            if scheme.algorithm is spec.algorithm and scheme.size in (0, spec.size):
                yield spec, scheme, MessageType.RAW
                if scheme.hash is not None:
                    yield spec, scheme, MessageType.HASH


@pytest.mark.parametrize(("spec", "scheme", "kind"), list(matrix()))
def test_each_scheme_signs_what_the_public_key_verifies(
    bench: Bench, spec: KeySpec, scheme: SignatureScheme, kind: MessageType
) -> None:
    need(bench, spec)
    made = bench.key(spec)
    message = MESSAGE
    if kind is MessageType.HASH and scheme.hash is not None:
        message = hashlib.new(scheme.hash.name, MESSAGE).digest()

    key = bench.engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)
    signature = signature_over(key, scheme, message, kind)

    assert signature_holds(made.public_key, scheme, MESSAGE, MessageType.RAW, signature)
    assert not signature_holds(made.public_key, scheme, b"another", MessageType.RAW, signature)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.algorithm}-{spec.size}")
def test_the_librarys_builders_sign_with_it(bench: Bench, spec: KeySpec) -> None:
    need(bench, spec)
    made = bench.key(spec)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of an engine")])
    now = datetime.now(UTC)
    with_hash = spec.algorithm in (KeyAlgorithm.RSA, KeyAlgorithm.ECDSA)

    key = bench.engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256() if with_hash else None)
    )

    certificate.verify_directly_issued_by(certificate)


async def test_two_dozen_at_once_all_get_their_own_signature(bench: Bench) -> None:
    made = bench.key(P256)
    scheme = SCHEMES["ECDSA_SHA_256"]
    engine = GuardedEngine(bench.stand.engine())
    messages = [f"message {number}".encode() for number in range(24)]

    async def sign(message: bytes) -> bytes:
        return await engine.use(
            made.key_id,
            lambda key: signature_over(key, scheme, message, MessageType.RAW),
            purpose=KeyPurpose.GENERAL,
        )

    signatures = await asyncio.gather(*(sign(message) for message in messages))

    for message, signature in zip(messages, signatures, strict=True):
        assert signature_holds(made.public_key, scheme, message, MessageType.RAW, signature)
    await engine.close()


def test_a_deleted_key_is_lost_and_deleting_it_again_is_fine(bench: Bench) -> None:
    made = bench.engine.generate(P256, purpose=KeyPurpose.GENERAL)
    for _ in range(2):
        bench.engine.delete(made.key_id)

    for engine in (bench.engine, bench.stand.engine()):
        with pytest.raises(Unavailable) as refusal:
            sign(engine, made.key_id, "ECDSA_SHA_256")
        assert refusal.value.code == "key_lost"


@pytest.mark.parametrize("unknown", ["0" * 64, "no id at all", "", "../../etc/passwd", "a'; --"])
def test_an_unknown_key_is_lost(bench: Bench, unknown: str) -> None:
    with pytest.raises(Unavailable) as refusal:
        sign(bench.engine, unknown, "ECDSA_SHA_256")
    assert refusal.value.code == "key_lost"


def test_a_key_made_elsewhere_is_taken_in_once(bench: Bench, tmp_path: Path) -> None:
    from lamassu.services.kms.engines.software import SoftwareEngine

    if not isinstance(bench.engine, TakesInKeys):
        pytest.skip("this engine takes no keys in")
    elsewhere = SoftwareEngine.open("other", tmp_path / "keys", b"another long passphrase")
    for spec in (P256, RSA_2048):
        made = elsewhere.generate(spec, purpose=KeyPurpose.GENERAL)
        private = elsewhere.take_out(made.key_id, purpose=KeyPurpose.GENERAL)

        taken = [bench.engine.take_in(private, purpose=KeyPurpose.GENERAL) for _ in range(2)]

        assert taken == [made, made]
        scheme = SCHEMES["ECDSA_SHA_256" if spec is P256 else "RSASSA_PSS_SHA_256"]
        signature = sign(bench.stand.engine(), made.key_id, scheme.name)
        assert signature_holds(made.public_key, scheme, MESSAGE, MessageType.RAW, signature)


def test_only_who_says_so_gives_a_key_out(bench: Bench) -> None:
    made = bench.key(P256)
    key = bench.engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)
    if isinstance(bench.engine, GivesOutKeys):
        out = bench.engine.take_out(made.key_id, purpose=KeyPurpose.GENERAL)
        assert out.public_key() == load_der_public_key(made.public_key)
        return
    with pytest.raises(RuleViolation) as refusal:
        key.private_numbers()  # type: ignore[union-attr]
    assert refusal.value.code == "key_not_exportable"


def test_an_engine_that_is_gone_says_so_and_comes_back(bench: Bench) -> None:
    made = bench.key(RSA_2048)
    scheme = SCHEMES["RSASSA_PKCS1_V1_5_SHA_256"]
    engine = bench.stand.engine()
    engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)

    with bench.stand.gone():
        with pytest.raises(Unavailable) as refusal:
            engine.check()
        assert refusal.value.text
        with pytest.raises(Unavailable):
            engine.generate(P256, purpose=KeyPurpose.GENERAL)

    for _ in range(3):  # what was cut may be noticed only when it is used again
        with suppress(Unavailable):
            engine.check()
    engine.check()
    signature = sign(engine, made.key_id, scheme.name)
    assert signature_holds(made.public_key, scheme, MESSAGE, MessageType.RAW, signature)
    engine.close()


# Through the KMS: clear refusals before anything is written


@pytest.mark.parametrize(
    "spec",
    [
        KeySpec(KeyAlgorithm.RSA, 1024),
        KeySpec(KeyAlgorithm.RSA, 2049),
        KeySpec(KeyAlgorithm.ECDSA, 224),
        KeySpec(KeyAlgorithm.ECDSA, 0),
        KeySpec(KeyAlgorithm.ED25519, 25519),
        KeySpec(KeyAlgorithm.ML_DSA, 66),
    ],
)
async def test_what_it_cannot_make_is_refused_by_name(kms: KmsService, spec: KeySpec) -> None:
    with pytest.raises(RuleViolation) as refusal:
        await kms.create_named(NewKey(spec, "refused"), caller=ALICE)

    assert (refusal.value.code, refusal.value.field) == ("unsupported_key", "size")


async def test_wrong_algorithms_digests_and_keys_are_refused(kms: KmsService) -> None:
    key = await kms.create_named(NewKey(P256, "signs"), caller=ALICE)

    async def refused(message: Message) -> str:
        with pytest.raises(LamassuError) as refusal:
            await kms.sign_named(key.key_id, message, caller=ALICE)
        return refusal.value.code

    raw, digest = MessageType.RAW, MessageType.HASH
    assert await refused(Message(b"m", raw, "RSASSA_PSS_SHA_256")) == "algorithm_mismatch"
    assert await refused(Message(b"m", raw, "ED25519")) == "algorithm_mismatch"
    assert await refused(Message(b"m", raw, "ECDSA_SHA_1")) == "unsupported_algorithm"
    assert await refused(Message(b"m" * 31, digest, "ECDSA_SHA_256")) == "invalid_digest_size"
    with pytest.raises(NotFound):
        await kms.sign_named("0" * 64, Message(b"m", raw, "ECDSA_SHA_256"), caller=ALICE)
    signature = await kms.sign_named(key.key_id, Message(b"m", raw, "ECDSA_SHA_256"), caller=ALICE)
    assert await kms.verify_named(key.key_id, Message(b"m", raw, "ECDSA_SHA_256"), signature)
    await kms.delete_named(key.key_id, caller=ALICE)


async def test_a_key_is_made_and_used_through_the_kms_for_a_ca(kms: KmsService) -> None:
    key = await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE)

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    csr = await kms.use(
        key.key_id,
        lambda private: (
            x509.CertificateSigningRequestBuilder()
            .subject_name(name)
            .sign(private, hashes.SHA256())
        ),
        purpose=KeyPurpose.CA,
    )

    assert csr.is_signature_valid
    assert [one.problem for one in await kms.health()] == [""]
    await kms.discard(key.key_id, purpose=KeyPurpose.CA, caller=ALICE)


async def test_a_key_that_no_row_knows_is_adopted_by_its_id(bench: Bench, kms: KmsService) -> None:
    made = bench.engine.generate(P256, purpose=KeyPurpose.GENERAL)
    wanted = Adopting(None, KeyPurpose.GENERAL, key_ids=[made.key_id])

    [adopted] = await kms.adopt(wanted, caller=ALICE)

    assert adopted.problem == ""
    row = await kms.get_named(made.key_id)
    assert (row.spec, row.public_key, row.origin) == (P256, made.public_key, KeyOrigin.ADOPTED)
    message = Message(MESSAGE, MessageType.RAW, "ECDSA_SHA_256")
    signature = await kms.sign_named(made.key_id, message, caller=ALICE)
    assert await kms.verify_named(made.key_id, message, signature)
    await kms.delete_named(made.key_id, caller=ALICE)


async def test_a_sent_key_is_imported_or_its_engine_says_that_it_takes_none(
    bench: Bench, kms: KmsService
) -> None:
    private_key = ec.generate_private_key(ec.SECP384R1())
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not isinstance(bench.engine, TakesInKeys):
        with pytest.raises(RuleViolation) as refusal:
            await kms.import_named(ImportedKey(pem), caller=ALICE)
        assert refusal.value.code == "key_not_importable"
        assert (await kms.count_keys()).total == 0
        return

    key = await kms.import_named(ImportedKey(pem), caller=ALICE)

    message = Message(MESSAGE, MessageType.RAW, "ECDSA_SHA_384")
    signature = await kms.sign_named(key.key_id, message, caller=ALICE)
    private_key.public_key().verify(signature, MESSAGE, ec.ECDSA(hashes.SHA384()))
    with pytest.raises(Conflict):
        await kms.import_named(ImportedKey(pem), caller=ALICE)
    assert await kms.verify_named(key.key_id, message, signature)
    await kms.delete_named(key.key_id, caller=ALICE)


async def test_what_an_engine_tells_of_itself_is_no_path_and_no_setting(
    bench: Bench, kms: KmsService
) -> None:
    [engine] = await kms.engines()
    shown = EngineAnswer.of(engine).model_dump_json()

    for secret in bench.stand.environment.values():
        assert len(secret) < 8 or secret not in shown
    for clue in ("/tmp", "/usr", "http://", "https://", ".so", "secret_id", "passphrase"):
        assert clue not in shown
