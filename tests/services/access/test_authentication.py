"""Who is a principal, seen by those who would like to be one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from lamassu.kernel.errors import NotFound, Unauthenticated
from lamassu.kernel.identity import Peer, PrincipalKind
from lamassu.kernel.x509.pem import ders_of
from lamassu.services.access.contract import CredentialKind, IssuedCredential
from lamassu.services.access.usecases import AccessService, authenticate
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.usecases import KmsService

from .conftest import HOST, MovedClock, peer_of

DAY = timedelta(days=1)


async def admin(access: AccessService, name: str = "alice") -> IssuedCredential:
    return await access.issue(CredentialKind.ADMIN, name, lifetime=DAY, caller=HOST)


async def refusal(access: AccessService, peer: Peer) -> str:
    """The code with which a peer is refused."""
    with pytest.raises(Unauthenticated) as refused:
        await access.authenticate(peer)
    return refused.value.code


def forged(
    issuer: x509.Certificate,
    now: datetime,
    *,
    uri: str = "lamassu://admin/alice",
    serial: int = 7,
    aki: bytes | None = None,
) -> x509.CertificateBuilder:
    """A certificate that claims to come from `issuer`, ready to be signed by anybody."""
    ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return (
        x509.CertificateBuilder(
            issuer.subject,
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")]),
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            serial,
            now - DAY,
            now + DAY,
        )
        .add_extension(x509.AuthorityKeyIdentifier(aki or ski, None, None), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )


async def issuing_certificate(access: AccessService) -> x509.Certificate:
    return x509.load_der_x509_certificate(ders_of(await access.trust_anchor_pem())[1])


async def signed_by_the_internal_ca(
    kms: KmsService, issuing: x509.Certificate, builder: x509.CertificateBuilder
) -> Peer:
    """What somebody could make who got hold of the internal CA's key for a moment."""
    ski = issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    certificate = await kms.use(
        ski.hex(), lambda key: builder.sign(key, hashes.SHA256()), purpose=KeyPurpose.PLATFORM
    )
    return Peer((certificate.public_bytes(Encoding.DER),))


async def test_an_admin_and_a_service_are_told_apart(access: AccessService) -> None:
    service = await access.issue(CredentialKind.SERVICE, "est", lifetime=DAY, caller=HOST)

    someone = await access.authenticate(peer_of(await admin(access)))
    something = await access.authenticate(peer_of(service))

    assert someone is not None
    assert something is not None
    assert (someone.kind, someone.id) == (PrincipalKind.ADMIN, "admin/alice")
    assert (something.kind, something.id) == (PrincipalKind.SERVICE, "service/est")


async def test_the_leaf_alone_is_enough(access: AccessService) -> None:
    issued = await admin(access)
    assert await access.authenticate(Peer((issued.credential.der,)))


async def test_nobody_and_strangers_are_no_principals(
    access: AccessService, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Lamassu")])
    stranger = (
        x509.CertificateBuilder(
            name, name, stranger_key.public_key(), 1, clock.now() - DAY, clock.now() + DAY
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("lamassu://admin/alice")]),
            critical=False,
        )
        .sign(stranger_key, hashes.SHA256())
    )

    def costly(*_: object, **__: object) -> None:
        raise AssertionError("a stranger bought a signature check")

    monkeypatch.setattr(authenticate, "verify_path", costly)
    peers = [
        Peer(),
        Peer((b"",)),
        Peer((b"\x30\x80garbage",)),
        Peer((bytes(100_000),)),
        Peer((stranger.public_bytes(Encoding.DER),)),
    ]
    for peer in peers:
        assert await access.authenticate(peer) is None


async def test_a_forged_certificate_under_our_names_is_a_strangers(
    access: AccessService, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuing = await issuing_certificate(access)
    thief = ec.generate_private_key(ec.SECP256R1())
    real = await admin(access)
    serial = int(real.credential.serial_number, 16)
    for builder in (
        forged(issuing, clock.now()),
        forged(issuing, clock.now(), serial=serial),
        forged(issuing, clock.now(), aki=bytes(32)),
    ):
        der = builder.sign(thief, hashes.SHA256()).public_bytes(Encoding.DER)
        assert await access.authenticate(Peer((der,))) is None
        # nor does sending our own certificates along help
        assert await access.authenticate(Peer((der, real.credential.der))) is None


async def test_a_forgers_ca_between_buys_nothing(access: AccessService, clock: MovedClock) -> None:
    issuing = await issuing_certificate(access)
    thief = ec.generate_private_key(ec.SECP256R1())
    own_ca = (
        x509.CertificateBuilder(
            issuing.subject,
            issuing.subject,
            thief.public_key(),
            9,
            clock.now() - DAY,
            clock.now() + DAY,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(thief, hashes.SHA256())
    )
    leaf = forged(issuing, clock.now()).sign(thief, hashes.SHA256())

    chain = (leaf.public_bytes(Encoding.DER), own_ca.public_bytes(Encoding.DER))
    assert await access.authenticate(Peer(chain)) is None


async def test_what_the_internal_ca_has_no_record_of_is_refused(
    access: AccessService, kms: KmsService, clock: MovedClock
) -> None:
    issuing = await issuing_certificate(access)
    unknown = await signed_by_the_internal_ca(kms, issuing, forged(issuing, clock.now()))
    assert await refusal(access, unknown) == "certificate_unknown"

    real = await admin(access)
    serial = int(real.credential.serial_number, 16)
    same_serial = await signed_by_the_internal_ca(
        kms, issuing, forged(issuing, clock.now(), serial=serial, uri="lamassu://admin/root")
    )
    assert await refusal(access, same_serial) == "certificate_unknown"


async def test_a_servers_certificate_is_not_for_clients(access: AccessService) -> None:
    issued = await access.issue(
        CredentialKind.SERVER, "alice", lifetime=DAY, caller=HOST, hosts=["localhost"]
    )
    assert await refusal(access, peer_of(issued)) == "certificate_purpose"


async def test_the_internal_cas_own_certificates_are_nobody(access: AccessService) -> None:
    for der in ders_of(await access.trust_anchor_pem()):
        assert await access.authenticate(Peer((der,))) is None


async def test_an_expired_certificate_is_refused_with_its_reason(
    access: AccessService, clock: MovedClock
) -> None:
    peer = peer_of(await admin(access))
    clock.move(DAY - timedelta(seconds=1))
    assert await access.authenticate(peer)
    clock.move(timedelta(seconds=2))  # within the five seconds of the cache
    assert await refusal(access, peer) == "certificate_expired"


async def test_a_revoked_admin_is_refused_at_once(access: AccessService) -> None:
    peer = peer_of(await admin(access))
    assert await access.authenticate(peer)

    [revoked] = await access.revoke("alice", caller=HOST)

    assert revoked.revoked_at is not None
    assert await refusal(access, peer) == "certificate_revoked"
    assert await access.revoke("alice", caller=HOST) == []


async def test_an_admin_revoked_by_another_process_is_refused_at_once(
    access: AccessService, start: Callable[[], AccessService]
) -> None:
    peer = peer_of(await admin(access))
    assert await access.authenticate(peer)

    await start().revoke("alice", caller=HOST)

    assert await refusal(access, peer) == "certificate_revoked"


async def test_a_service_revoked_by_another_process_is_refused_within_five_seconds(
    access: AccessService, start: Callable[[], AccessService], clock: MovedClock
) -> None:
    issued = await access.issue(CredentialKind.SERVICE, "est", lifetime=DAY, caller=HOST)
    peer = peer_of(issued)
    assert await access.authenticate(peer)

    await start().revoke("est", caller=HOST)
    clock.move(timedelta(seconds=5))

    assert await refusal(access, peer) == "certificate_revoked"


async def test_a_judgement_that_a_revocation_overtook_is_not_remembered(
    access: AccessService, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await access.issue(CredentialKind.SERVICE, "est", lifetime=DAY, caller=HOST)
    peer = peer_of(issued)
    storage = access._storage
    find = storage.find_credential

    async def find_and_be_overtaken(serial_number: str) -> object:
        found = await find(serial_number)
        monkeypatch.setattr(storage, "find_credential", find)
        await access.revoke("est", caller=HOST)
        return found

    monkeypatch.setattr(storage, "find_credential", find_and_be_overtaken)
    await access.authenticate(peer)

    assert await refusal(access, peer) == "certificate_revoked"


async def test_revoking_by_serial_number_leaves_the_others_of_that_name(
    access: AccessService,
) -> None:
    first, second = await admin(access), await admin(access)

    [revoked] = await access.revoke(first.credential.serial_number.upper(), caller=HOST)

    assert revoked.serial_number == first.credential.serial_number
    assert await refusal(access, peer_of(first)) == "certificate_revoked"
    assert await access.authenticate(peer_of(second))
    with pytest.raises(NotFound):
        await access.revoke("nobody", caller=HOST)


async def test_a_servers_certificate_is_revoked_by_serial_number_only(
    access: AccessService,
) -> None:
    issued = await access.issue(
        CredentialKind.SERVER, "localhost", lifetime=DAY, caller=HOST, hosts=["localhost"]
    )
    with pytest.raises(NotFound):
        await access.revoke("localhost", caller=HOST)
    [revoked] = await access.revoke(issued.credential.serial_number, caller=HOST)
    assert revoked.kind is CredentialKind.SERVER


async def test_another_installations_admin_is_a_stranger(
    access: AccessService, clock: MovedClock
) -> None:
    """Both internal CAs have the same name; their keys differ."""
    issuing = await issuing_certificate(access)
    other_key = ec.generate_private_key(ec.SECP256R1())
    other_ski = x509.SubjectKeyIdentifier.from_public_key(other_key.public_key()).digest
    theirs = forged(issuing, clock.now(), aki=other_ski).sign(other_key, hashes.SHA256())

    assert await access.authenticate(Peer((theirs.public_bytes(Encoding.DER),))) is None
