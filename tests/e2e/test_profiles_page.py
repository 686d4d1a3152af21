"""`docs/how-to/profiles.md`, typed in as it stands, and what comes of it before outside judges."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.csrs import request
from tests.support.howto import shell_blocks, type_in
from tests.support.judges import lint_certificate, openssl_verify
from tests.support.server import Server

PAGE = "profiles.md"


def chain(server: Server, *ids: str) -> list[bytes]:
    with server.admin() as admin:
        return [
            der_of(admin.get(f"/api/ca/v1/cas/{one}").json()["certificate"]["certificate"])
            for one in ids
        ]


def der_of(wire: str) -> bytes:
    return x509.load_pem_x509_certificate(base64.b64decode(wire)).public_bytes(Encoding.DER)


def test_the_page_works_as_it_stands(platform: Server) -> None:
    folder = platform.directory.parent
    said = type_in(shell_blocks(PAGE), folder=folder, environment={"LAMASSU_URL": platform.url})

    assert "1 enrolments: 1 would fail, 0 would get another certificate" in said
    assert "1 enrolments: 0 would fail, 1 would get another certificate" in said
    assert "san_unpatterned" in said
    assert "DNS:sensor-17.sensors.example" in said
    sensor = x509.load_pem_x509_certificate((folder / "sensor.crt").read_bytes())
    leaf = sensor.public_bytes(Encoding.DER)
    root, *between = chain(platform, "root-ca", "intermediate-ca", "manufacturing-ca")
    assert lint_certificate(leaf) == []
    assert openssl_verify(leaf, anchors=[root], intermediates=between)[0]
    # the preview's octets are what was signed, but for the serial number
    previewed = (folder / "sensor.tbs").read_bytes()
    assert abs(len(previewed) - len(sensor.tbs_certificate_bytes)) <= 1


def test_name_constraints_bind_what_is_issued_below(platform: Server) -> None:
    root, *between = chain(platform, "root-ca", "intermediate-ca", "constrained-ca")
    assert lint_certificate(between[-1]) == []
    constrained = x509.load_der_x509_certificate(between[-1])
    constraints = constrained.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    profile = {
        "id": "plant-device",
        "validity": {"type": "Duration", "duration": "720h"},
        "key_usage": ["DigitalSignature"],
        "extended_key_usages": ["ClientAuth"],
        "subject": {"organization": "Acme", "country": "PT"},
        "honor_extensions": True,
        "ca_id": "constrained-ca",
    }
    with platform.admin() as admin:
        assert admin.post("/api/ca/v1/profiles", json=profile).status_code == 201
        fixed = {
            **profile,
            "id": "elsewhere",
            "honor_extensions": False,
            "alternative_names": {"names": [{"type": "dns", "value": "a.elsewhere.example"}]},
        }
        refused = admin.post("/api/ca/v1/profiles", json=fixed)
        answers = {}
        for name in ("a.plant.example", "a.elsewhere.example"):
            csr = x509.load_der_x509_csr(request("a", names=[x509.DNSName(name)]))
            wire = base64.b64encode(csr.public_bytes(Encoding.PEM)).decode()
            answers[name] = admin.post(
                "/api/ca/v1/cas/constrained-ca/certificates/sign",
                json={"csr": wire, "profile_id": "plant-device"},
            )

    assert (refused.status_code, refused.json()["code"]) == (400, "name_not_permitted")
    assert refused.json()["field"] == "alternative_names.names"
    inside = answers["a.plant.example"]
    assert inside.status_code == 201, inside.text
    leaf = der_of(inside.json()["certificate"])
    assert lint_certificate(leaf) == []
    accepted, text = openssl_verify(leaf, anchors=[root], intermediates=between)
    assert accepted, text
    assert answers["a.elsewhere.example"].status_code == 400, answers["a.elsewhere.example"].text


def test_the_worker_replays_in_a_process_of_its_own(platform: Server) -> None:
    with platform.admin() as admin:
        stored = admin.get("/api/ca/v1/profiles/sensors").json()
        answer = admin.post("/api/ca/v1/profiles/sensors/what-if", json={"profile": stored})

    assert answer.status_code == 200, answer.text
    assert (answer.json()["examined"], answer.json()["differing"]) == (1, 0), json.dumps(
        answer.json()
    )


def test_the_page_tells_of_every_finding() -> None:
    root = Path(__file__).resolve().parents[2]
    source = (root / "src/lamassu/services/ca/rules/profile_findings.py").read_text()
    told = re.findall(r'Finding\(\s*"(\w+)"', source)

    assert len(told) >= 7
    for code in told:
        assert f"| `{code}` |" in (root / "docs/how-to" / PAGE).read_text()
