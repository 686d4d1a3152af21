"""TLS contexts: what our listeners accept, and what our own clients present.

A listener reads client certificates in one of two ways. *Asked*: the peer may show any chain or
none, and the handshake ends well; the application judges it later, with a status and a reason
(EST needs that). *Required*: the handshake fails without a certificate that chains to given
anchors (the internal port). In neither way is a session resumed, because a resumed session has
lost the peer's chain.

One thing the binding does not offer is `SSL_CTX_set_num_tickets`: under TLS 1.3 OpenSSL still
sends two session identifiers. The session cache is off, so neither is ever honoured.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto

from lamassu.kernel.errors import Malformed, RuleViolation, TooLarge
from lamassu.platform.security.cipher_suites import (
    DEFAULT_SUITES,
    tls12_cipher_list,
    tls13_cipher_list,
)

_KEY_TYPES_WITH_COSTLY_SIZES = frozenset(
    {crypto.TYPE_RSA, crypto.TYPE_DSA, crypto.TYPE_DH, 912}  # 912: RSA-PSS (NID_rsassaPss)
)


class TlsVersion(StrEnum):
    """The lowest version that a listener speaks, spelt as in the configuration."""

    TLS12 = "TLS12"
    TLS13 = "TLS13"


_OPENSSL_VERSION = {
    TlsVersion.TLS12: SSL.TLS1_2_VERSION,
    TlsVersion.TLS13: SSL.TLS1_3_VERSION,
}


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What a listener accepts in a handshake."""

    min_version: TlsVersion = TlsVersion.TLS12
    cipher_suites: tuple[str, ...] = DEFAULT_SUITES
    max_chain_certificates: int = 8
    max_chain_bytes: int = 65_536
    max_key_bits: int = 8_192
    """Bounds RSA, DSA and DH keys, whose use costs by their size."""
    max_rsa_exponent_bits: int = 64


class ServerTls:
    """What a TLS listener needs: makes one OpenSSL connection per accepted socket."""

    def __init__(
        self,
        cert_chain_pem: bytes,
        key_pem: bytes,
        *,
        policy: TlsPolicy | None = None,
        required_anchors: Sequence[bytes] | None = None,
    ) -> None:
        """See `build_server_context`."""
        self._policy = policy or TlsPolicy()
        self._required_anchors = tuple(required_anchors) if required_anchors is not None else None
        self._context = self._build(cert_chain_pem, key_pem)

    def replace_certificate(self, cert_chain_pem: bytes, key_pem: bytes) -> None:
        """Use another certificate for connections from now on; present ones live on.

        Raises as `build_server_context` does; then the old certificate stays in use.
        """
        self._context = self._build(cert_chain_pem, key_pem)

    def new_connection(self) -> SSL.Connection:
        """A server-side TLS state machine over memory buffers."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def peer_chain(self, connection: SSL.Connection) -> tuple[bytes, ...]:
        """The chain that the peer presented (DER, its own first); empty if none.

        Raises `TooLarge` when it exceeds the policy.
        """
        own = connection.get_peer_certificate()
        if own is None:
            return ()
        # on a server's side OpenSSL leaves the peer's own certificate out of this list
        presented = (own, *(connection.get_peer_cert_chain() or ()))
        if len(presented) > self._policy.max_chain_certificates:
            raise TooLarge("the client presents too many certificates", code="chain_too_long")
        chain = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, item) for item in presented)
        if sum(map(len, chain)) > self._policy.max_chain_bytes:
            raise TooLarge("the client's certificates are too large", code="chain_too_large")
        return chain

    def _build(self, cert_chain_pem: bytes, key_pem: bytes) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_OPENSSL_VERSION[self._policy.min_version])
        context.set_options(
            SSL.OP_NO_TICKET
            | SSL.OP_NO_RENEGOTIATION
            | SSL.OP_NO_COMPRESSION
            | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        self._set_cipher_suites(context)
        _set_own_certificate(context, cert_chain_pem, key_pem)
        if self._required_anchors is None:
            self._ask_for_any_certificate(context)
        else:
            _require_certificate(context, self._required_anchors)
        return context

    def _set_cipher_suites(self, context: SSL.Context) -> None:
        tls12 = tls12_cipher_list(self._policy.cipher_suites)
        tls13 = tls13_cipher_list(self._policy.cipher_suites)
        if tls12:
            context.set_cipher_list(tls12.encode("ascii"))
        else:  # only suites of TLS 1.3 are wanted, so there is nothing to speak below it
            context.set_min_proto_version(SSL.TLS1_3_VERSION)
        if tls13:
            context.set_tls13_ciphersuites(tls13.encode("ascii"))

    def _ask_for_any_certificate(self, context: SSL.Context) -> None:
        # No list of acceptable CAs goes out (it stays empty), so that a device offers whatever
        # certificate it has. Depth 0 keeps OpenSSL from verifying signatures up a stranger's
        # chain: at most the first certificate's is checked, and its outcome is not asked.
        context.set_verify_depth(0)
        context.set_verify(SSL.VERIFY_PEER, self._accept_unless_costly)

    def _accept_unless_costly(
        self, _connection: SSL.Connection, certificate: crypto.X509, *_verdict: int
    ) -> bool:
        """Called for the end of the short chain before any signature, then for each certificate.

        What it raises would end as a fault of ours in the log, for each stranger who likes.
        """
        try:
            return self._is_cheap(certificate.get_pubkey())
        except (crypto.Error, SSL.Error, ValueError, TypeError, UnsupportedAlgorithm):
            return False  # a key that OpenSSL or the library cannot read

    def _is_cheap(self, key: crypto.PKey) -> bool:
        if key.type() not in _KEY_TYPES_WITH_COSTLY_SIZES:
            return True
        if key.bits() > self._policy.max_key_bits:
            return False
        public_key = key.to_cryptography_key()
        return not isinstance(public_key, rsa.RSAPublicKey) or (
            public_key.public_numbers().e.bit_length() <= self._policy.max_rsa_exponent_bits
        )


def build_server_context(
    cert_chain_pem: bytes,
    key_pem: bytes,
    *,
    policy: TlsPolicy | None = None,
    required_anchors: Sequence[bytes] | None = None,
) -> ServerTls:
    """TLS for a listener with that certificate (PEM, its own first) and unencrypted key (PEM).

    Without `required_anchors` any client certificate, or none, is accepted and handed on
    unjudged. With them (DER) the handshake fails for a client without a certificate that chains
    to one of them, is within its dates and may authenticate clients; an empty sequence lets
    nobody in. Raises `Malformed` for unreadable PEM and `RuleViolation` for a key that is not the
    certificate's or an unknown cipher suite.
    """
    return ServerTls(cert_chain_pem, key_pem, policy=policy, required_anchors=required_anchors)


def build_client_context(
    *, ca_file: Path, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """TLS for our own outgoing calls: trusts only `ca_file`, presents `cert_file` if given.

    Raises `Malformed` when a file cannot be read as what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=str(ca_file))
        if cert_file is not None:
            context.load_cert_chain(str(cert_file), str(key_file) if key_file else None)
    except (OSError, ssl.SSLError) as fault:
        raise Malformed(
            f"cannot use the TLS files {ca_file}, {cert_file}, {key_file}: {fault}",
            code="tls_files",
        ) from fault
    return context


def _set_own_certificate(context: SSL.Context, cert_chain_pem: bytes, key_pem: bytes) -> None:
    try:
        chain = x509.load_pem_x509_certificates(cert_chain_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as fault:
        raise Malformed(
            "the server's TLS certificate or key (http.tls) is not readable PEM",
            code="tls_files",
        ) from fault
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise RuleViolation("the server's TLS key must be RSA or ECDSA", code="tls_files")
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as fault:
        raise RuleViolation(
            "the server's TLS key is not the key of its certificate", code="tls_files"
        ) from fault


def _require_certificate(context: SSL.Context, anchors: Sequence[bytes]) -> None:
    store = context.get_cert_store()
    if store is None:  # a new context always has one
        raise AssertionError("OpenSSL context without a certificate store")
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(anchor)))
    context.set_verify_depth(4)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
