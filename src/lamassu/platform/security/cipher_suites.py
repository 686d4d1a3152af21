"""The TLS cipher suites that the platform speaks, by their IANA names."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.errors import RuleViolation

TLS12_SUITES = {
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""IANA name -> OpenSSL's name: forward secrecy and authenticated encryption only."""

TLS13_SUITES = frozenset(
    {
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_128_GCM_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    }
)
"""IANA names, which OpenSSL shares for TLS 1.3."""

DEFAULT_SUITES = (
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)

ALLOWED_SUITES = (*TLS12_SUITES, *sorted(TLS13_SUITES))


def check_cipher_suite(name: str) -> None:
    """Raise `RuleViolation` (`unknown_cipher_suite`) for a name that is not in `ALLOWED_SUITES`."""
    if name not in TLS12_SUITES and name not in TLS13_SUITES:
        raise RuleViolation(
            f"unknown or weak cipher suite {name!r}; allowed are {', '.join(ALLOWED_SUITES)}",
            code="unknown_cipher_suite",
            field="http.tls.cipher_suites",
        )


def tls12_cipher_list(names: Sequence[str]) -> str:
    """OpenSSL's cipher list for TLS 1.2, in the order given; empty when no name is of TLS 1.2."""
    for name in names:
        check_cipher_suite(name)
    return ":".join(TLS12_SUITES[name] for name in names if name in TLS12_SUITES)


def tls13_cipher_list(names: Sequence[str]) -> str:
    """OpenSSL's list for TLS 1.3; empty (which means OpenSSL's own) when no name is of TLS 1.3."""
    for name in names:
        check_cipher_suite(name)
    return ":".join(name for name in names if name in TLS13_SUITES)
