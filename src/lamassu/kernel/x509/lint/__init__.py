"""What is about to be signed, read back from its octets and held against RFC 5280.

Nothing here knows how a certificate was built: the rules see the DER that the CA's key would
sign, so that a fault of the builder is found like a fault of the request. They are cheap
enough for every issuance; `pkix` asks all of pkilint's linters where there is time for them.
"""

from lamassu.kernel.x509.lint.check import check_to_be_signed
from lamassu.kernel.x509.lint.findings import LINT_FAILED, LintRefusal, PlatformLintRefusal
from lamassu.kernel.x509.lint.signing_key import linting_key

__all__ = [
    "LINT_FAILED",
    "LintRefusal",
    "PlatformLintRefusal",
    "check_to_be_signed",
    "linting_key",
]
