"""What other slices may know of a ceremony: the files that it writes and reads."""

from lamassu.services.ceremony.contract.answers import (
    CA_VALIDITY,
    CRL_VALIDITY,
    KEY_CUSTODIAN,
    RESPONDER_VALIDITY,
    ROOT_VALIDITY,
    Answers,
    Person,
    RequestWish,
    RootWish,
)
from lamassu.services.ceremony.contract.bundle import (
    Bundle,
    bundle_file,
    bundle_message,
    check_covers,
    is_bundle,
    parse_bundle,
)
from lamassu.services.ceremony.contract.requests import read_request
from lamassu.services.ceremony.contract.revocations import (
    RevocationOrder,
    order_document,
    parse_order,
)
from lamassu.services.ceremony.contract.transcript import (
    Deed,
    Line,
    Signed,
    Transcript,
    parse_transcript,
)

__all__ = [
    "CA_VALIDITY",
    "CRL_VALIDITY",
    "KEY_CUSTODIAN",
    "RESPONDER_VALIDITY",
    "ROOT_VALIDITY",
    "Answers",
    "Bundle",
    "Deed",
    "Line",
    "Person",
    "RequestWish",
    "RevocationOrder",
    "RootWish",
    "Signed",
    "Transcript",
    "bundle_file",
    "bundle_message",
    "check_covers",
    "is_bundle",
    "order_document",
    "parse_bundle",
    "parse_order",
    "parse_transcript",
    "read_request",
]
