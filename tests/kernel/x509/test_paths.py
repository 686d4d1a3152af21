"""Attacks on path validation: what the library enforces under our policy, shown case by case."""

from __future__ import annotations

import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.x509 import paths
from lamassu.kernel.x509.paths import PathInvalid, Purpose, verify_path
from tests.support.pki import CLIENT_AUTH, NOW, SERVER_AUTH, Made, ec_key, make, usage


@pytest.fixture(scope="module")
def root() -> Made:
    return make("Root", ca=True)


@pytest.fixture(scope="module")
def middle(root: Made) -> Made:
    return make("Middle", issuer=root, ca=True)


def path(
    leaf: Made, *between: Made, anchor: Made, purpose: Purpose = Purpose.CLIENT_AUTH
) -> tuple[bytes, ...]:
    return verify_path(
        leaf.der,
        intermediates=[m.der for m in between],
        anchors=[anchor.der],
        at=NOW,
        purpose=purpose,
    )


def refusal(
    leaf: Made, *between: Made, anchor: Made, purpose: Purpose = Purpose.CLIENT_AUTH
) -> str:
    with pytest.raises(PathInvalid) as caught:
        path(leaf, *between, anchor=anchor, purpose=purpose)
    return caught.value.code


def test_a_device_certificate_without_san_has_a_path(root: Made, middle: Made) -> None:
    leaf = make("device-1", issuer=middle, extended=CLIENT_AUTH)

    assert path(leaf, middle, anchor=root) == (leaf.der, middle.der, root.der)


def test_an_intermediate_ca_is_an_anchor_like_any_other(root: Made, middle: Made) -> None:
    leaf = make("device-1", issuer=middle)

    assert path(leaf, anchor=middle) == (leaf.der, middle.der)
    assert path(leaf, middle, root, anchor=middle) == (leaf.der, middle.der)


def test_a_certificate_without_purposes_serves_any(root: Made) -> None:
    leaf = make("device-1", issuer=root)

    for purpose in Purpose:
        assert path(leaf, anchor=root, purpose=purpose)


def test_the_wrong_purpose_is_refused(root: Made) -> None:
    server = make("server", issuer=root, extended=SERVER_AUTH)

    assert refusal(server, anchor=root) == "certificate_purpose"
    assert path(server, anchor=root, purpose=Purpose.SERVER_AUTH)
    assert path(server, anchor=root, purpose=Purpose.ANY)


def test_a_key_that_may_not_sign_authenticates_no_client(root: Made) -> None:
    leaf = make("device-1", issuer=root, key_usage=usage(key_encipherment=True))

    assert refusal(leaf, anchor=root) == "certificate_purpose"


def test_a_ca_restricted_to_other_purposes_is_refused(root: Made) -> None:
    servers = make("Servers only", issuer=root, ca=True, extended=SERVER_AUTH)
    leaf = make("device-1", issuer=servers, extended=CLIENT_AUTH)

    assert refusal(leaf, servers, anchor=root) == "path_invalid"


def test_expired_and_future_certificates_are_refused(root: Made) -> None:
    expired = make("device-1", issuer=root, not_after=NOW - timedelta(seconds=1))
    future = make("device-1", issuer=root, not_before=NOW + timedelta(seconds=1))

    assert refusal(expired, anchor=root) == "certificate_expired"
    assert refusal(future, anchor=root) == "certificate_not_yet_valid"


def test_an_expired_ca_ends_its_certificates(root: Made) -> None:
    old = make("Old", issuer=root, ca=True, not_after=NOW - timedelta(seconds=1))
    leaf = make("device-1", issuer=old)
    old_root = make("Old root", ca=True, not_after=NOW - timedelta(seconds=1))

    assert refusal(leaf, old, anchor=root) == "certificate_expired"
    assert refusal(make("device-2", issuer=old_root), anchor=old_root) == "certificate_expired"


def test_a_stranger_is_unknown_even_under_our_names(root: Made) -> None:
    stranger = make("Root", ca=True)

    assert refusal(make("device-1", issuer=stranger), anchor=root) == "certificate_unknown_issuer"
    assert (
        refusal(make("device-1", issuer=stranger), stranger, anchor=root)
        == "certificate_unknown_issuer"
    )
    assert refusal(make("device-1"), anchor=root) == "certificate_unknown_issuer"
    expired = make("device-1", issuer=stranger, not_after=NOW - timedelta(days=1))
    assert refusal(expired, anchor=root) == "certificate_unknown_issuer"


def test_an_end_entity_issues_nothing(root: Made) -> None:
    device = make("device-1", issuer=root)
    forged = make("device-2", issuer=device)
    bare = make("bare", issuer=root, basic_constraints=False)

    assert refusal(forged, device, anchor=root) == "path_invalid"
    assert refusal(make("device-2", issuer=bare), bare, anchor=root) == "path_invalid"


def test_a_ca_that_may_not_sign_certificates_issues_nothing(root: Made) -> None:
    crl_only = make("CRLs only", issuer=root, ca=True, key_usage=usage(crl_sign=True))

    assert refusal(make("device-1", issuer=crl_only), crl_only, anchor=root) == "path_invalid"


def test_a_path_longer_than_its_ca_allows_is_refused(root: Made) -> None:
    last = make("Last", issuer=root, ca=True, path_length=0)
    beyond = make("Beyond", issuer=last, ca=True)

    assert path(make("device-1", issuer=last), last, anchor=root)
    assert refusal(make("device-1", issuer=beyond), beyond, last, anchor=root) == "path_invalid"
    # the same where the limited CA itself is the anchor
    assert refusal(make("device-1", issuer=beyond), beyond, anchor=last) == "path_invalid"


@pytest.mark.parametrize(
    "san",
    [
        x509.DNSName("device.elsewhere.example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
    ],
)
def test_name_constraints_bind_what_a_ca_issues(root: Made, san: x509.GeneralName) -> None:
    constraints = x509.NameConstraints(
        permitted_subtrees=[
            x509.DNSName("factory.example"),
            x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
        ],
        excluded_subtrees=None,
    )
    bounded = make("Bounded", issuer=root, ca=True, extra=[(constraints, True)])
    names = x509.SubjectAlternativeName
    inside = make(
        "device-1",
        issuer=bounded,
        extra=[(names([x509.DNSName("device.factory.example")]), False)],
    )
    outside = make("device-1", issuer=bounded, extra=[(names([san]), False)])

    assert path(inside, bounded, anchor=root)
    assert refusal(outside, bounded, anchor=root) == "path_invalid"
    assert refusal(outside, anchor=bounded) == "path_invalid"


def test_an_unknown_critical_extension_is_refused(root: Made) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

    leaf = make("device-1", issuer=root, extra=[(unknown, True)])
    assert refusal(leaf, anchor=root) == "path_invalid"
    assert path(make("device-1", issuer=root, extra=[(unknown, False)]), anchor=root)


def test_a_ca_certificate_is_nobodys_client_certificate(root: Made, middle: Made) -> None:
    assert refusal(middle, anchor=root) == "path_invalid"
    assert path(middle, anchor=root, purpose=Purpose.ANY)


def test_an_anchor_presented_as_a_client_certificate_is_refused() -> None:
    leaf = make("self-signed", extended=CLIENT_AUTH)

    assert refusal(leaf, anchor=leaf) == "path_invalid"


def test_a_swapped_key_under_a_ca_name_and_serial_does_not_help(root: Made, middle: Made) -> None:
    impostor = make(
        "Middle",
        issuer=root,
        ca=True,
        serial_number=middle.certificate.serial_number,
        key=ec_key(),
    )
    leaf = make("device-1", issuer=impostor)

    # the impostor's signature by the root is real here; only the exact anchor counts
    assert refusal(leaf, anchor=middle) == "certificate_unknown_issuer"


def test_a_strangers_chain_is_searched_with_our_own_keys_only(
    root: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack on security rule 21: seven CAs of one name, each of which each of them may have
    signed, with slow keys. Searched from the bottom they cost 49 ms a request on a kept
    connection; a path of ours through such company is found all the same."""
    looked_with: list[bytes] = []
    issued = paths._issued

    def watched(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
        looked_with.append(issuer.public_bytes(Encoding.DER))
        return issued(issuer, certificate)

    monkeypatch.setattr(paths, "_issued", watched)
    stranger = make("Ring", ca=True, key=ec_key())
    ring = [make("Ring", issuer=stranger, ca=True, key=ec_key()) for _ in range(7)]
    leaf = make("device", issuer=ring[0], extended=CLIENT_AUTH)

    assert refusal(leaf, *ring, anchor=root) == "certificate_unknown_issuer"
    assert set(looked_with) <= {root.der}

    top = make("Top", issuer=root, ca=True)
    below = make("Below", issuer=top, ca=True)
    ours = make("device", issuer=below, extended=CLIENT_AUTH)
    found = path(ours, *ring, below, top, anchor=root)
    assert found == (ours.der, below.der, top.der, root.der)


def test_rubbish_and_floods_are_refused(root: Made) -> None:
    leaf = make("device-1", issuer=root)
    for rubbish in (b"", b"\x30", leaf.der[:-1], leaf.der + b"\0", b"\x30\x80" + leaf.der):
        with pytest.raises(PathInvalid):
            verify_path(rubbish, intermediates=[], anchors=[root.der], at=NOW, purpose=Purpose.ANY)
    with pytest.raises(PathInvalid):
        verify_path(
            leaf.der,
            intermediates=[leaf.der] * 11,
            anchors=[root.der],
            at=NOW,
            purpose=Purpose.ANY,
        )
    with pytest.raises(PathInvalid) as caught:
        verify_path(leaf.der, intermediates=[], anchors=[], at=NOW, purpose=Purpose.ANY)
    assert caught.value.code == "certificate_unknown_issuer"
