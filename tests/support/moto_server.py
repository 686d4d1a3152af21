"""An emulator of AWS in a process of its own: moto's server, corrected where AWS is otherwise.

Run by path, steered by JSON lines on standard input (see `moto.py`). Corrected in KMS, by what
AWS documents: a DIGEST is not hashed again; PSS has a salt as long as the digest; a digest of
another length is refused; keys that are disabled or pending deletion neither sign nor show their
public key; aliases have a date and come in pages; a key can be deleted by its ARN; Ed25519 and
ML-DSA keys exist.
"""

from __future__ import annotations

import contextvars
import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from moto.core.exceptions import JsonRESTError
from moto.kms import models, responses, utils
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sts import models as sts
from werkzeug.serving import make_server

MESSAGE_TYPE: contextvars.ContextVar[str] = contextvars.ContextVar("message_type", default="RAW")
CONNECTIONS: set[socket.socket] = set()
ROLE_LIFETIME = {"seconds": 3600}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
WHOLE = {
    "ECC_NIST_EDWARDS25519": (ed25519.Ed25519PrivateKey.generate, "ED25519_SHA_512"),
    "ML_DSA_44": (mldsa.MLDSA44PrivateKey.generate, "ML_DSA_SHAKE_256"),
    "ML_DSA_65": (mldsa.MLDSA65PrivateKey.generate, "ML_DSA_SHAKE_256"),
    "ML_DSA_87": (mldsa.MLDSA87PrivateKey.generate, "ML_DSA_SHAKE_256"),
}


def refused(name: str, text: str = "") -> JsonRESTError:
    return JsonRESTError(name, text)


def hashed(message: bytes, algorithm: str) -> Any:
    """The hash to sign with: the message's, or none again for a digest."""
    chosen = HASHES[algorithm[-3:]]
    if MESSAGE_TYPE.get() == "RAW":
        return chosen
    if len(message) != chosen.digest_size:
        raise refused("ValidationException", "Digest is invalid length for algorithm")
    return Prehashed(chosen)


def sign_rsa(key: Any, message: bytes, algorithm: str) -> bytes:
    how = hashed(message, algorithm)
    plain = HASHES[algorithm[-3:]]
    padded: Any = padding.PKCS1v15()
    if "PSS" in algorithm:
        padded = padding.PSS(padding.MGF1(plain), plain.digest_size)
    signature: bytes = key.private_key.sign(message, padded, how)
    return signature


def sign_ecdsa(key: Any, message: bytes, algorithm: str) -> bytes:
    if algorithm not in key.valid_signing_algorithms:
        raise refused("InvalidKeyUsageException")
    signature: bytes = key.private_key.sign(message, ec.ECDSA(hashed(message, algorithm)))
    return signature


class WholeMessageKey(utils.AbstractPrivateKey):
    """Ed25519 and ML-DSA, which moto does not have."""

    def __init__(self, spec: str) -> None:
        self.private_key: Any = WHOLE[spec][0]()

    def sign(self, message: bytes, signing_algorithm: str) -> bytes:
        kind = MESSAGE_TYPE.get()
        signature: bytes
        if signing_algorithm == "ED25519_SHA_512" and kind == "RAW":
            signature = self.private_key.sign(message)
        elif signing_algorithm == "ML_DSA_SHAKE_256" and kind == "EXTERNAL_MU":
            if len(message) != 64:
                raise refused("ValidationException", "mu has 64 bytes")
            signature = self.private_key.sign_mu(message)
        elif signing_algorithm == "ML_DSA_SHAKE_256" and kind == "RAW":
            signature = self.private_key.sign(message)
        else:
            raise refused("ValidationException", "message type")
        return signature

    def verify(self, message: bytes, signature: bytes, signing_algorithm: str) -> bool:
        raise NotImplementedError

    def public_key(self) -> bytes:
        public: bytes = self.private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return public


def correct_kms() -> None:
    inner_sign = responses.KmsResponse.sign
    inner_public = responses.KmsResponse.get_public_key
    inner_generate = utils.generate_private_key
    inner_algorithms = models.Key.signing_algorithms
    inner_alias = models.Alias.__init__

    def check_state(answer: responses.KmsResponse) -> None:
        named = answer._get_param("KeyId")
        answer._validate_key_id(named)
        key = answer.kms_backend.describe_key(answer.kms_backend.any_id_to_key_id(named))
        if key.key_state == "Disabled":
            raise refused("DisabledException")
        if key.key_state == "PendingDeletion":
            raise refused("KMSInvalidStateException")

    def sign(self: responses.KmsResponse) -> str:
        check_state(self)
        kind = self._get_param("MessageType") or "RAW"
        message = self._get_param("Message")
        if len(message) > 4096:
            raise refused("ValidationException", "Message is longer than 4096")
        token = MESSAGE_TYPE.set(kind)
        try:
            return inner_sign(self)
        finally:
            MESSAGE_TYPE.reset(token)

    def get_public_key(self: responses.KmsResponse) -> str:
        check_state(self)
        return inner_public(self)

    def generate_private_key(key_spec: str) -> utils.AbstractPrivateKey:
        return WholeMessageKey(key_spec) if key_spec in WHOLE else inner_generate(key_spec)

    def signing_algorithms(self: models.Key) -> list[str]:
        if self.key_spec in WHOLE:
            return [WHOLE[self.key_spec][1]]
        listed: list[str] = inner_algorithms.fget(self)  # type: ignore[attr-defined]
        return listed

    def dated(self: models.Alias, *arguments: Any, **named: Any) -> None:
        inner_alias(self, *arguments, **named)
        self.made = time.time()  # type: ignore[attr-defined]

    def list_aliases(self: responses.KmsResponse) -> str:
        limit = int(self._get_param("Limit") or 50)
        start = int(self._get_param("Marker") or 0)
        found = list(self.kms_backend.list_aliases())
        page = found[start : start + limit]
        more = start + limit < len(found)
        return json.dumps(
            {
                "Aliases": [
                    {
                        "AliasName": alias.alias_name,
                        "AliasArn": alias.alias_arn,
                        "TargetKeyId": alias.target_key_id,
                        "CreationDate": alias.made,  # type: ignore[attr-defined]
                    }
                    for alias in page
                ],
                "Truncated": more,
                **({"NextMarker": str(start + limit)} if more else {}),
            }
        )

    def by_key_id(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: models.KmsBackend, key_id: str, *arguments: Any, **named: Any) -> Any:
            return inner(self, self.get_key_id(key_id), *arguments, **named)

        return call

    for name in ("schedule_key_deletion", "cancel_key_deletion", "disable_key", "enable_key"):
        setattr(models.KmsBackend, name, by_key_id(getattr(models.KmsBackend, name)))
    responses.KmsResponse.sign = sign  # type: ignore[method-assign]
    responses.KmsResponse.get_public_key = get_public_key  # type: ignore[method-assign]
    responses.KmsResponse.list_aliases = list_aliases  # type: ignore[method-assign]
    utils.RSAPrivateKey.sign = sign_rsa  # type: ignore[method-assign, assignment]
    utils.ECDSAPrivateKey.sign = sign_ecdsa  # type: ignore[method-assign, assignment]
    models.generate_private_key = generate_private_key  # type: ignore[attr-defined]
    models.Key.signing_algorithms = property(signing_algorithms)  # type: ignore[assignment, method-assign]
    models.Alias.__init__ = dated  # type: ignore[method-assign]
    known = utils.KeySpec.key_specs
    listed = utils.SigningAlgorithm.signing_algorithms
    utils.KeySpec.key_specs = classmethod(lambda cls: [*known(), *WHOLE])  # type: ignore[assignment, method-assign]
    utils.SigningAlgorithm.signing_algorithms = classmethod(  # type: ignore[assignment, method-assign]
        lambda cls: [*listed(), *{algorithm for _, algorithm in WHOLE.values()}]
    )


class Emulator:
    """moto's application behind faults that a test asks for, and the server that carries it."""

    def __init__(self) -> None:
        self.application = DomainDispatcherApplication(create_backend_app)
        self.faults: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str]] = []
        self.port = 0
        self.server: Any = None
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        operation = self._operation(environ)
        if operation:
            with self.lock:
                self.seen.append((operation, _access_key(environ)))
            fault = self._fault(operation)
            if fault is not None:
                time.sleep(fault.get("delay", 0))
                if "code" in fault:
                    return _error(fault, start)
        answer: Iterable[bytes] = self.application(environ, start)
        return answer

    def _operation(self, environ: dict[str, Any]) -> str:
        target = environ.get("HTTP_X_AMZ_TARGET")
        if target:
            return str(target).rpartition(".")[2]
        if environ["REQUEST_METHOD"] != "POST" or "moto-api" in environ["PATH_INFO"]:
            return ""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        return parse_qs(body.decode(errors="replace")).get("Action", [""])[0]

    def _fault(self, operation: str) -> dict[str, Any] | None:
        with self.lock:
            for fault in self.faults:
                if fault["operation"] in ("*", operation) and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return None

    def up(self) -> int:
        self.server = make_server(
            "127.0.0.1", self.port, self, threaded=True, request_handler=QuietHandler
        )
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self.port

    def down(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        while CONNECTIONS:
            with suppress(OSError, KeyError):
                CONNECTIONS.pop().shutdown(socket.SHUT_RDWR)

    def obey(self, order: dict[str, Any]) -> object:
        match order["do"]:
            case "up":
                return self.up()
            case "down":
                self.down()
            case "fault":
                with self.lock:
                    self.faults.append(order)
            case "calm":
                with self.lock:
                    self.faults.clear()
                    self.seen.clear()
            case "seen":
                with self.lock:
                    return list(self.seen)
            case "role-lifetime":
                ROLE_LIFETIME["seconds"] = order["seconds"]
        return None


class QuietHandler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as AWS keeps them

    def setup(self) -> None:
        super().setup()
        CONNECTIONS.add(self.connection)

    def finish(self) -> None:
        CONNECTIONS.discard(self.connection)
        super().finish()

    def log_request(self, *_: object) -> None:
        """Not a line for each."""


def _access_key(environ: dict[str, Any]) -> str:
    found = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return found[1] if found else ""


def _error(fault: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    if fault.get("html"):
        kind, body = "text/html", b"<html>no AWS here</html>"
    elif fault["operation"] == "AssumeRole":
        kind = "text/xml"
        error = f"<Error><Code>{fault['code']}</Code><Message>secret-in-text</Message></Error>"
        body = f"<ErrorResponse>{error}<RequestId>r-1</RequestId></ErrorResponse>".encode()
    else:
        kind = "application/x-amz-json-1.1"
        text = fault.get("message", "text of AWS about arn:aws:kms:us-east-1:123456789012")
        body = json.dumps({"__type": fault["code"], "message": text}).encode()
    status = f"{fault.get('status', 400)} Fault"
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def correct_sts() -> None:
    """Let tests say how long a role's credentials live; a real one lives 15 minutes at least."""
    inner = sts.AssumedRole.__init__

    def init(self: sts.AssumedRole, *arguments: Any, **named: Any) -> None:
        inner(self, *arguments, **{**named, "duration": ROLE_LIFETIME["seconds"]})

    sts.AssumedRole.__init__ = init  # type: ignore[method-assign]


def main() -> None:
    correct_kms()
    correct_sts()
    emulator = Emulator()
    for line in sys.stdin:
        answer = emulator.obey(json.loads(line))
        print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    main()
