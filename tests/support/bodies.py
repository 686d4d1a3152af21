"""Bodies that a route takes, made from its own description: nobody keeps a list of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lamassu.kernel.x509.pem import pem_of
from tests.support import csrs
from tests.support.pki import make

CSR = base64.b64encode(pem_of(csrs.request("someone"), "CERTIFICATE REQUEST")).decode()
CERTIFICATE = base64.b64encode(pem_of(make("somebody", ca=True).der)).decode()

# What no description tells: values by the name of their field.
KNOWN: Mapping[str, Any] = {
    "csr": CSR,
    "certificate": CERTIFICATE,
    "ca": CERTIFICATE,
    "algorithm": "ECDSA_SHA_256",
    "signature_algorithm": "ECDSA_SHA_256",
    "op": "add",
    "path": "/sample",
    "key_usage": "DigitalSignature",
    "extended_key_usages": "ClientAuth",
    "type": "ECDSA",
    "bits": 256,
    "size": 256,
}


def sample(model: type[BaseModel], *, whole: bool, known: Mapping[str, Any] = KNOWN) -> Any:
    """A body with every field of the model, or only with those that it must have."""
    schema = model.model_json_schema(mode="validation")
    return _Sampler(schema.get("$defs", {}), whole, known).of(schema)


class _Sampler:
    def __init__(
        self, definitions: Mapping[str, Any], whole: bool, known: Mapping[str, Any]
    ) -> None:
        self._definitions = definitions
        self._whole = whole
        self._known = known

    def of(self, schema: Mapping[str, Any], name: str = "") -> Any:
        if "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return self.of(next(s for s in schema["anyOf"] if s.get("type") != "null"), name)
        if "enum" in schema:
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array":
                return [self.of(schema.get("items", {}), name)]
            case "string":
                return self._known.get(name, _text(schema))
            case "integer":
                return self._known.get(name, schema.get("minimum", 1))
            case "number":
                return 1.5
            case "boolean":
                return False
        return "anything"

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.of(inner, name)
            for name, inner in schema.get("properties", {}).items()
            if self._whole or name in required
        }


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("contentEncoding") == "base64":
        return base64.b64encode(b"message").decode()
    formats = {"date-time": "2040-01-01T00:00:00Z", "lamassu-duration": "24h"}
    return formats.get(schema.get("format", ""), "text")
