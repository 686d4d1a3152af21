"""HSMs: what a token is asked, what it is never asked twice, and how its loss is borne.

The token is SoftHSM's; pkcs11-tool says what became of keys in it. Behind `shimmed` stands a
library that counts calls and fails as a test asks.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins, TokenName
from lamassu.services.kms.model import SCHEMES
from lamassu.services.kms.ports import CryptoEngine, EngineDown, EngineRefused
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.softhsm import ShimmedHsm, SoftHsm, Token, run

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
RSA_2048 = KeySpec(KeyAlgorithm.RSA, 2048)
CA, GENERAL = KeyPurpose.CA, KeyPurpose.GENERAL
EVER = datetime(9999, 12, 31, tzinfo=UTC)

# PKCS #11 v2.40, pkcs11t.h
CKR_GENERAL_ERROR = 0x005
CKR_DEVICE_REMOVED = 0x032
CKR_PIN_LOCKED = 0x0A4
CKR_SESSION_COUNT = 0x0B1
CKR_SESSION_HANDLE_INVALID = 0x0B3
CKR_TEMPLATE_INCONSISTENT = 0x0D1
CKR_TOKEN_NOT_PRESENT = 0x0E0
CKR_USER_NOT_LOGGED_IN = 0x101
CKR_FUNCTION_REJECTED = 0x200


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    try:
        return SoftHsm(tmp_path / "hsm")
    except ComponentMissing as missing:
        missing_component(str(missing))


@pytest.fixture
def token(hsm: SoftHsm) -> Token:
    return hsm.token()


@pytest.fixture
def shimmed(tmp_path: Path) -> ShimmedHsm:
    try:
        return ShimmedHsm(tmp_path / "shimmed")
    except ComponentMissing as missing:
        missing_component(str(missing))


def signs(engine: CryptoEngine, key_id: str, purpose: KeyPurpose = GENERAL) -> bool:
    """Whether a signature of the key, which is EC, verifies."""
    key = engine.private_key(key_id, purpose=purpose)
    scheme = SCHEMES["ECDSA_SHA_256"]
    signature = signature_over(key, scheme, b"message", MessageType.RAW)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return signature_holds(public_key, scheme, b"message", MessageType.RAW, signature)


def refusal(work: Callable[[], object]) -> tuple[str, str]:
    """The code and text with which the engine as a whole refuses."""
    with pytest.raises(EngineDown) as raised:
        work()
    return raised.value.code, raised.value.text


# Keys in the token, as somebody else sees them


@pytest.mark.parametrize("spec", [P256, RSA_2048, KeySpec(KeyAlgorithm.ED25519, 256)])
def test_a_key_is_made_in_the_token_for_signing_alone_and_never_leaves_it(
    token: Token, spec: KeySpec, tmp_path: Path
) -> None:
    engine = token.engine()

    made = engine.generate(spec, purpose=CA)

    [private] = [one for one in token.objects() if one["object"].startswith("Private")]
    assert private["label"] == f"lamassu:ca:{made.key_id}"
    assert private["ID"] == made.key_id
    assert private["Usage"] == "sign"
    access = set(private["Access"].split(", "))
    assert access == {"sensitive", "always sensitive", "never extractable", "local"}
    assert not any("Private" in line for line in token.tool("-O", login=False).splitlines())
    out = tmp_path / "private-key"
    with suppress(RuntimeError):
        token.tool(
            "--read-object", "--type", "privkey", "--id", made.key_id, "--output-file", str(out)
        )
    assert not out.exists() or not out.read_bytes()
    engine.close()


def test_an_imported_key_is_as_closed_as_one_made_there(token: Token) -> None:
    engine = token.engine()

    made = engine.take_in(ec.generate_private_key(ec.SECP256R1()), purpose=GENERAL)

    [private] = [one for one in token.objects() if one["object"].startswith("Private")]
    assert (private["Usage"], private["Access"]) == ("sign", "sensitive")
    assert signs(engine, made.key_id)
    engine.close()


def test_what_the_original_made_is_found_used_and_deleted(token: Token) -> None:
    made = subprocess.run(
        [sys.executable, "-c", AS_THE_ORIGINAL, str(token.module_path), token.label, token.pin],
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    engine = token.engine()

    for key_id in made:
        for purpose in (CA, GENERAL):  # only our database knows what the original's keys are for
            key = engine.private_key(key_id, purpose=purpose)
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            assert hashlib.sha256(public).hexdigest() == key_id
    assert signs(engine, made[1])
    assert engine.key_ids(made_before=EVER) == []  # not ours to set aside
    engine.delete(made[0])
    assert len(token.objects()) == 2
    assert signs(token.engine(), made[1])
    engine.close()


# Names keys as the original does by crypto11: CKA_ID a UUID as text, and the key id as the label
# of the private key alone.
AS_THE_ORIGINAL = """
import hashlib, sys, uuid
import pkcs11
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key
from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
module, label, pin = sys.argv[1:]
session = pkcs11.lib(module).get_token(token_label=label).open(rw=True, user_pin=pin)
made = []
for kind in "rsa", "ec":
    names = {"id": str(uuid.uuid4()).encode(), "store": True}
    if kind == "rsa":
        public, private = session.generate_keypair(pkcs11.KeyType.RSA, 2048, **names)
        spki = PublicKeyInfo.wrap(RSAPublicKey.load(encode_rsa_public_key(public)), "rsa").dump()
    else:
        parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        curve = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
        public, private = curve.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN, **names)
        spki = encode_ec_public_key(public)
    private[pkcs11.Attribute.LABEL] = hashlib.sha256(spki).hexdigest()
    print(private[pkcs11.Attribute.LABEL])
"""


def test_keys_of_others_are_neither_used_nor_listed_nor_deleted(token: Token) -> None:
    token.tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "theirs")
    before = token.objects()
    point = bytes.fromhex(before[-1].get("EC_POINT") or before[0]["EC_POINT"])[2:]
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = hashlib.sha256(spki).hexdigest()
    engine = token.engine()

    with pytest.raises(Unavailable) as raised:
        engine.private_key(theirs, purpose=GENERAL)
    engine.delete(theirs)

    assert raised.value.code == "key_lost"
    assert engine.key_ids(made_before=EVER) == []
    assert token.objects() == before
    engine.close()


def test_a_key_of_another_purpose_is_not_given(token: Token) -> None:
    engine = token.engine()
    made = engine.generate(P256, purpose=CA)

    with pytest.raises(Unavailable) as raised:
        engine.private_key(made.key_id, purpose=GENERAL)

    assert raised.value.code == "key_damaged"
    engine.close()


def test_keys_are_listed_by_the_day_they_were_made_and_set_aside_by_name(token: Token) -> None:
    engine = token.engine()
    made = engine.generate(P256, purpose=GENERAL)
    now = datetime.now(UTC)

    assert engine.key_ids(made_before=now - timedelta(days=1)) == []
    assert engine.key_ids(made_before=now + timedelta(days=2)) == [made.key_id]

    engine.set_aside(made.key_id)
    assert engine.key_ids(made_before=EVER) == []
    assert {one["label"] for one in token.objects()} == {f"lamassu:aside:general:{made.key_id}"}

    again = token.engine()
    assert signs(again, made.key_id)  # needed after all: it has its name back
    assert engine.key_ids(made_before=EVER) == [made.key_id]
    engine.close()
    again.close()


# PINs


def test_a_wrong_pin_is_sent_once_whatever_is_asked_and_started_again(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    wrong = token.engine(pin=b"9999")

    codes = {refusal(wrong.check)[0] for _ in range(3)}
    codes |= {refusal(lambda: wrong.generate(P256, purpose=GENERAL))[0]}
    restarted = token.engine(pin=b"9999")
    code, text = refusal(restarted.check)

    assert codes | {code} == {"pin_refused"}
    assert "not sent again" in text
    assert str(token.refused_pins / "refused.json") in text  # for a token that was given this PIN
    assert "9999" not in text
    assert shimmed.calls("C_Login") == 1
    another = token.engine(pin=b"8888")
    assert refusal(another.check)[0] == "pin_refused"
    assert shimmed.calls("C_Login") == 2
    assert refusal(token.engine(pin=b"9999").check)[0] == "pin_refused"
    assert shimmed.calls("C_Login") == 2


def test_a_corrected_pin_is_tried_and_its_success_forgets_the_refusals(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    assert refusal(token.engine(pin=b"9999").check)[0] == "pin_refused"
    record = token.refused_pins / "refused.json"
    refused = record.read_text()

    engine = token.engine()
    engine.check()

    assert "9999" not in refused
    assert len(refused) > 64  # a digest
    assert record.read_text() == "{}"
    assert record.stat().st_mode & 0o777 == 0o600
    engine.close()


def test_the_refusal_is_an_engine_refused_and_told_to_the_operator(token: Token) -> None:
    with pytest.raises(EngineRefused) as raised:
        token.engine(pin=b"9999").check()

    assert "engine hsm" in raised.value.text
    assert "'ca'" in raised.value.text
    assert "Correct `pin`" in raised.value.text


def test_a_pin_whose_answer_was_lost_in_a_crash_counts_as_refused_if_the_token_says_so(
    tmp_path: Path,
) -> None:
    name = TokenName("maker", "model", "serial", "label")
    with RefusedPins(tmp_path / "pins").attempt(name, b"1", failed_lately=False, patience=1) as one:
        assert one is not None  # and the process dies here

    after = RefusedPins(tmp_path / "pins")
    with after.attempt(name, b"1", failed_lately=True, patience=1) as again:
        assert again is None
    with after.attempt(name, b"1", failed_lately=False, patience=1) as later:
        assert later is None  # remembered
    with after.attempt(name, b"2", failed_lately=True, patience=1) as other:
        assert other is not None


def test_a_pin_whose_answer_was_lost_is_tried_again_where_the_token_saw_no_wrong_one(
    tmp_path: Path,
) -> None:
    name = TokenName("maker", "model", "serial", "label")
    with RefusedPins(tmp_path / "pins").attempt(name, b"1", failed_lately=False, patience=1):
        pass
    with RefusedPins(tmp_path / "pins").attempt(
        name, b"1", failed_lately=False, patience=1
    ) as again:
        assert again is not None


def test_two_processes_do_not_send_one_pin_at_once(tmp_path: Path) -> None:
    name = TokenName("maker", "model", "serial", "label")
    pins = RefusedPins(tmp_path / "pins")
    with pins.attempt(name, b"1", failed_lately=False, patience=1):
        with pytest.raises(EngineDown) as raised:
            with pins.attempt(name, b"1", failed_lately=False, patience=0.1):
                pass
    assert raised.value.code == "token_busy"


@pytest.mark.parametrize("trouble", ["a file in its place", "a damaged record"])
def test_no_pin_is_sent_that_could_not_be_remembered(shimmed: ShimmedHsm, trouble: str) -> None:
    token = shimmed.token()
    if trouble == "a file in its place":
        token.refused_pins.parent.mkdir()
        token.refused_pins.write_text("")
    else:
        token.refused_pins.mkdir(parents=True, mode=0o700)
        (token.refused_pins / "refused.json").write_text("{")
    engine = token.engine()

    assert refusal(engine.check)[0] == "pin_record_unusable"
    assert shimmed.calls("C_Login") == 0


def test_a_locked_pin_is_said_and_tried_again_once_it_was_reset(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    engine = token.engine()
    engine.facts()
    with suppress(EngineDown):
        token.engine(token="another").check()  # loads the library
    shimmed.fail("C_Login", CKR_PIN_LOCKED, times=1)

    code, text = refusal(engine.check)

    assert code == "pin_locked"
    assert "security officer" in text
    engine.check()
    engine.close()


def test_a_token_without_user_pin_is_said(hsm: SoftHsm) -> None:
    token = Token(hsm, "bare", "1234", "87654321")
    hsm.token("other")
    run(
        [
            "pkcs11-tool", "--module", str(token.module_path), "--init-token", "--slot-index", "1",
            "--label", token.label, "--so-pin", token.so_pin,
        ],
        token.env,
    )  # fmt: skip

    assert refusal(token.engine().check)[0] == "pin_not_initialized"


# What is wrong with the configuration, each by its own name


def test_a_missing_library_a_file_that_is_none_and_another_library_are_told(
    token: Token, tmp_path: Path
) -> None:
    text = tmp_path / "module.so"
    text.write_text("no library")
    other = tmp_path / "other.so"
    other.symlink_to(_ctypes.__file__)

    missing = refusal(token.engine(module_path=tmp_path / "absent.so").check)
    unloadable = refusal(token.engine(module_path=text).check)
    another = refusal(token.engine(module_path=other).check)

    assert missing[0] == "module_missing"
    assert str(tmp_path / "absent.so") in missing[1]
    assert unloadable[0] == another[0] == "module_not_loadable"
    assert str(text) in unloadable[1]


def test_a_missing_token_is_told_with_those_that_are_there(hsm: SoftHsm) -> None:
    hsm.token("one")
    token = hsm.token("two")

    code, text = refusal(token.engine(token="three").check)

    assert code == "token_missing"
    assert "'three'" in text
    assert "'one', 'two'" in text


def test_of_two_tokens_with_one_label_the_serial_number_chooses(hsm: SoftHsm) -> None:
    token = hsm.token("ca")
    hsm.token("ca")

    code, text = refusal(token.engine().check)
    serials = text.rpartition("one of ")[2].split(", ")

    assert code == "token_ambiguous"
    assert len(serials) == 2
    engines = [token.engine(serial=serial) for serial in serials]
    made = [engine.generate(P256, purpose=GENERAL) for engine in engines]
    for engine, own, other in zip(engines, made, reversed(made), strict=True):
        assert signs(engine, own.key_id)
        with pytest.raises(Unavailable):
            engine.private_key(other.key_id, purpose=GENERAL)
        engine.close()


def test_one_library_cannot_be_loaded_with_two_environments(hsm: SoftHsm, tmp_path: Path) -> None:
    token = hsm.token()
    engine = token.engine()
    engine.check()

    other = token.engine(env={"SOFTHSM2_CONF": str(tmp_path / "another.conf")})

    assert refusal(other.check)[0] == "module_env_conflict"
    engine.close()


def test_a_token_that_was_made_after_the_library_was_loaded_is_found(hsm: SoftHsm) -> None:
    hsm.token("early")
    late = Token(hsm, "late", "1234", "87654321")
    assert refusal(late.engine().check)[0] == "token_missing"

    hsm.token("late")

    engine = late.engine()
    engine.check()
    engine.close()


def test_facts_are_told_before_the_token_is_reached(tmp_path: Path, token: Token) -> None:
    unreachable = token.engine(module_path=tmp_path / "absent.so")
    facts = unreachable.facts()
    assert (facts.id, facts.type, facts.security_level) == ("hsm", "PKCS11", 2)
    assert facts.supported[KeyAlgorithm.RSA] == (2048, 3072, 4096)

    engine = token.engine(metadata={"rack": "7"})
    engine.check()
    facts = engine.facts()
    assert (facts.provider, facts.name) == ("SoftHSM", "SoftHSM v2")
    assert facts.supported[KeyAlgorithm.ED25519] == (256,)
    assert facts.metadata["rack"] == "7"
    assert facts.metadata["lamassu.io/cryptoengine/pkcs11/manufacturer"] == "SoftHSM"
    engine.close()


# Loss and return


@pytest.mark.parametrize(
    "answer",
    [
        CKR_DEVICE_REMOVED,
        CKR_SESSION_HANDLE_INVALID,
        CKR_TOKEN_NOT_PRESENT,
        CKR_USER_NOT_LOGGED_IN,
    ],
)
def test_a_signature_survives_the_loss_of_its_session(shimmed: ShimmedHsm, answer: int) -> None:
    engine = shimmed.token().engine()
    made = engine.generate(P256, purpose=GENERAL)
    shimmed.fail("C_SignInit", answer, times=1)

    assert signs(engine, made.key_id)

    assert shimmed.calls("C_Login") == 2
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the binding's
def test_a_token_that_stays_away_is_told_and_used_when_it_is_back(shimmed: ShimmedHsm) -> None:
    engine = shimmed.token().engine()
    made = engine.generate(P256, purpose=GENERAL)
    for function in ("C_SignInit", "C_GetTokenInfo", "C_FindObjectsInit"):
        shimmed.fail(function, CKR_TOKEN_NOT_PRESENT)

    codes = {refusal(lambda: signs(engine, made.key_id))[0], refusal(engine.check)[0]}

    assert codes == {"token_lost"}
    for function in ("C_SignInit", "C_GetTokenInfo", "C_FindObjectsInit"):
        shimmed.fail(function, 0, times=0)
    engine.check()
    assert signs(engine, made.key_id)
    engine.close()


def test_one_key_that_the_token_cannot_use_is_not_the_loss_of_the_token(
    shimmed: ShimmedHsm,
) -> None:
    engine = shimmed.token().engine()
    made = engine.generate(P256, purpose=GENERAL)
    shimmed.fail("C_SignInit", CKR_GENERAL_ERROR)

    with pytest.raises(Unavailable) as raised:
        signs(engine, made.key_id)

    assert raised.value.code == "token_operation_failed"
    assert not isinstance(raised.value, EngineDown)
    engine.check()
    engine.close()


def test_a_token_taken_away_and_put_back_is_used_again(hsm: SoftHsm) -> None:
    engine = hsm.token().engine()
    made = engine.generate(P256, purpose=GENERAL)
    assert signs(engine, made.key_id)

    with hsm.gone():
        refusal(engine.check)
        refusal(lambda: engine.generate(P256, purpose=GENERAL))

    assert signs(engine, made.key_id)
    engine.check()
    engine.close()


def test_a_logout_by_somebody_else_in_the_process_is_healed(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    engine, other = token.engine(sessions=1), token.engine(sessions=1)
    made = engine.generate(P256, purpose=GENERAL)
    other.check()
    assert shimmed.calls("C_Login") == 1  # one login holds for the process

    _log_out(shimmed)

    assert signs(other, made.key_id)
    assert signs(engine, made.key_id)
    engine.close()
    assert signs(other, made.key_id)  # closing one engine logs nobody else out
    other.close()


def _log_out(shimmed: ShimmedHsm) -> None:
    """C_Logout of whatever session there is."""
    listed = ctypes.POINTER(ctypes.c_void_p)()
    shimmed.shim.C_GetFunctionList(ctypes.byref(listed))
    logout = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong)(listed[1 + 19])
    assert 0 in {logout(handle) for handle in range(1, 10)}


def test_a_key_that_was_replaced_behind_the_handle_is_found_again(token: Token) -> None:
    engine, other = token.engine(), token.engine()
    private = ec.generate_private_key(ec.SECP256R1())
    made = engine.take_in(private, purpose=GENERAL)
    assert signs(engine, made.key_id)

    other.delete(made.key_id)
    with pytest.raises(Unavailable) as raised:
        signs(engine, made.key_id)
    assert raised.value.code == "key_lost"
    other.take_in(private, purpose=GENERAL)

    assert signs(engine, made.key_id)
    engine.close()
    other.close()


def test_a_key_without_its_public_half_is_damaged_not_lost(token: Token) -> None:
    engine = token.engine()
    made = engine.generate(P256, purpose=GENERAL)
    token.tool("--delete-object", "--type", "pubkey", "--id", made.key_id)

    with pytest.raises(Unavailable) as raised:
        token.engine().private_key(made.key_id, purpose=GENERAL)

    assert raised.value.code == "key_damaged"
    rsa_key = engine.generate(RSA_2048, purpose=GENERAL)
    token.tool("--delete-object", "--type", "pubkey", "--id", rsa_key.key_id)
    token.engine().private_key(rsa_key.key_id, purpose=GENERAL)  # it knows its own modulus
    engine.close()


# Threads


def hammer(engine: CryptoEngine, key_ids: list[str], *, threads: int, rounds: int) -> list[bool]:
    results: list[bool] = []

    def work() -> None:
        for number in range(rounds):
            results.append(signs(engine, key_ids[number % len(key_ids)]))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def test_many_threads_and_two_tokens_behind_one_library_at_once(hsm: SoftHsm) -> None:
    engines = [hsm.token(label).engine() for label in ("one", "two")]
    keys = [[engine.generate(P256, purpose=GENERAL).key_id for _ in range(2)] for engine in engines]
    results: list[list[bool]] = [[], []]

    def work(place: int) -> None:
        results[place] = hammer(engines[place], keys[place], threads=4, rounds=100)

    both = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join()

    assert results == [[True] * 400] * 2
    for engine in engines:
        engine.close()


def test_keys_are_made_while_others_look_for_keys(token: Token) -> None:
    """SoftHSM's store is not made for that: without our turns keys fail within seconds."""
    engine = token.engine()
    engine.check()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            engine.delete("ab" * 32)  # looks for a key that is not there

    others = [threading.Thread(target=look) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        for _ in range(60):
            engine.generate(P256, purpose=CA)
    finally:
        done.set()
        for thread in others:
            thread.join()


def test_threads_are_inside_the_library_at_once(shimmed: ShimmedHsm) -> None:
    engine = shimmed.token().engine()
    key = engine.generate(P256, purpose=GENERAL)

    assert all(hammer(engine, [key.key_id], threads=4, rounds=100))

    assert shimmed.most_inside > 1
    engine.close()


def test_a_library_that_cannot_lock_is_called_by_one_thread_at_a_time(tmp_path: Path) -> None:
    try:
        shimmed = ShimmedHsm(tmp_path / "shimmed", cannot_lock=True)
    except ComponentMissing as missing:
        missing_component(str(missing))
    engines = [shimmed.token(label).engine() for label in ("one", "two")]
    keys = [engine.generate(P256, purpose=GENERAL).key_id for engine in engines]
    results: list[bool] = []

    threads = [
        threading.Thread(
            target=lambda place=place: results.extend(
                hammer(engines[place], [keys[place]], threads=2, rounds=50)
            )
        )
        for place in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 200
    assert shimmed.most_inside == 1
    for engine in engines:
        engine.close()


def test_a_token_with_fewer_sessions_than_configured_serves_with_those(
    shimmed: ShimmedHsm,
) -> None:
    engine = shimmed.token().engine(sessions=4)
    key = engine.generate(P256, purpose=GENERAL)
    shimmed.fail("C_OpenSession", CKR_SESSION_COUNT)

    assert all(hammer(engine, [key.key_id], threads=4, rounds=20))
    engine.close()


def test_a_hanging_library_is_left_behind(shimmed: ShimmedHsm) -> None:
    engine = shimmed.token().engine(sessions=1, timeout_seconds=0.5)
    key = engine.generate(P256, purpose=GENERAL)
    assert signs(engine, key.key_id)
    before = shimmed.calls("C_Sign")
    shimmed.hang("C_Sign", True)
    stuck = threading.Thread(target=lambda: signs(engine, key.key_id), daemon=True)
    stuck.start()

    deadline = time.monotonic() + 10
    while shimmed.calls("C_Sign") == before and time.monotonic() < deadline:
        time.sleep(0.01)
    code, _ = refusal(engine.check)  # its one session is in there

    assert code == "token_busy"
    engine.check()  # another session
    shimmed.hang("C_Sign", False)
    stuck.join(10)
    assert signs(engine, key.key_id)
    engine.close()


def test_closing_does_not_wait_for_a_library_that_hangs(shimmed: ShimmedHsm) -> None:
    engine = shimmed.token().engine()
    engine.check()
    shimmed.hang("C_CloseSession", True)

    started = time.monotonic()
    engine.close()

    assert time.monotonic() - started < 4
    shimmed.hang("C_CloseSession", False)
    with pytest.raises(Unavailable) as raised:
        engine.check()
    assert raised.value.code == "engine_closed"


def test_a_forked_child_does_not_use_its_parents_sessions(token: Token) -> None:
    engine = token.engine()
    key = engine.generate(P256, purpose=GENERAL)
    assert signs(engine, key.key_id)
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:  # pragma: no cover - not in this process
        try:
            engine.check()
            os.write(writing, b"used it")
        except EngineDown as error:
            os.write(writing, error.code.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 100) == b"engine_forked"
    assert signs(engine, key.key_id)
    engine.close()


# What a token does not do


def test_a_key_whose_naming_fails_leaves_nothing(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    engine = token.engine()
    engine.check()
    shimmed.fail("C_SetAttributeValue", CKR_FUNCTION_REJECTED)

    with pytest.raises(Unavailable):
        engine.generate(P256, purpose=GENERAL)

    assert token.objects() == []
    engine.close()


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
)
def test_a_token_that_takes_no_key_in_clear_takes_it_encrypted(
    shimmed: ShimmedHsm, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    token = shimmed.token()
    engine = token.engine()
    engine.check()
    shimmed.fail("C_CreateObject", CKR_TEMPLATE_INCONSISTENT, times=1, after=1)

    made = engine.take_in(private, purpose=GENERAL)

    key = engine.private_key(made.key_id, purpose=GENERAL)
    is_rsa = isinstance(private, rsa.RSAPrivateKey)
    scheme = SCHEMES["RSASSA_PSS_SHA_256" if is_rsa else "ECDSA_SHA_384"]
    signature = signature_over(key, scheme, b"message", MessageType.RAW)
    assert signature_holds(made.public_key, scheme, b"message", MessageType.RAW, signature)
    objects = token.objects()
    assert len(objects) == 2  # the helpers are gone
    [kept] = [one for one in objects if one["object"].startswith("Private")]
    assert (kept["Usage"], kept["Access"]) == ("sign", "sensitive")
    engine.close()


def test_a_token_that_takes_no_keys_says_so_and_keeps_nothing(shimmed: ShimmedHsm) -> None:
    token = shimmed.token()
    engine = token.engine()
    engine.check()
    shimmed.fail("C_CreateObject", CKR_TEMPLATE_INCONSISTENT, after=1)
    shimmed.fail("C_UnwrapKey", CKR_TEMPLATE_INCONSISTENT)

    with pytest.raises(RuleViolation) as raised:
        engine.take_in(ec.generate_private_key(ec.SECP256R1()), purpose=GENERAL)

    assert raised.value.code == "key_not_importable"
    assert token.objects() == []
    engine.close()


def test_ed25519_keys_are_taken_in(token: Token) -> None:
    engine = token.engine()
    private = ed25519.Ed25519PrivateKey.generate()

    made = engine.take_in(private, purpose=GENERAL)

    key = engine.private_key(made.key_id, purpose=GENERAL)
    assert key.public_key() == load_der_public_key(made.public_key) == private.public_key()
    private.public_key().verify(key.sign(b"message"), b"message")  # type: ignore[call-arg]
    engine.close()
