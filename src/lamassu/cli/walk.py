"""The life of one device, as commands that anybody can repeat by hand.

Each step is a shell command that is printed and then really run: what the reader sees is what
happened. Only `openssl`, `curl` and coreutils are used.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

# The name that the security guide's renewal script asks for.
DEMO_DMS = "production-dms"
DEMO_PROFILE = "demo-device-profile"
ENROLLMENT_CA = "manufacturing-ca"
BOOTSTRAP_CA = "bootstrap-ca"
BOOTSTRAP_PROFILE = "bootstrap-profile"

# 29 days, so that the seed's renewal script, which acts below 30, has something to do.
DEMO_VALIDITY = "696h"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the walk happens: the installation, its addresses, and the device's own folder."""

    directory: Path
    https_url: str
    http_url: str
    device_id: str

    @property
    def folder(self) -> Path:
        return self.directory / "demo" / self.device_id


@dataclass(frozen=True, slots=True)
class Step:
    """A command, what it is for, and a text that its output must contain (none: any)."""

    title: str
    command: str
    expect: tuple[str, ...] = ()


class StepFailed(Exception):
    """A step of the walk did not do what it should."""

    def __init__(self, step: Step, output: str) -> None:
        super().__init__(step.title)
        self.step = step
        self.output = output


def preamble(place: Place) -> str:
    """The variables that the printed commands use."""
    return "\n".join(
        (
            f"cd {place.folder}",
            f"DIR={place.directory}",
            f"API={place.https_url}/api",
            f"EST={place.https_url}/.well-known/est/{DEMO_DMS}",
            f"VA={place.http_url}",
            f"DEVICE={place.device_id}",
            'admin() { curl -sS --cacert "$DIR/tls-ca.crt"'
            ' --cert "$DIR/admin.crt" --key "$DIR/admin.key" "$@"; }',
        )
    )


def steps(place: Place) -> Iterator[Step]:
    """The walk, in order."""
    yield from _factory_steps()
    yield from _enrollment_steps(place)
    yield from _revocation_steps()


def _factory_steps() -> Iterator[Step]:
    yield Step(
        "A profile whose certificates live 29 days, and a DMS that uses it (409: there from an earlier run)",
        f"""admin -o /dev/null -w '%{{http_code}}\\n' "$API/ca/v1/profiles" -d '{{
  "id": "{DEMO_PROFILE}", "name": "Demo devices",
  "validity": {{"type": "Duration", "duration": "{DEMO_VALIDITY}"}},
  "key_usage": ["DigitalSignature"], "extended_key_usages": ["ClientAuth"],
  "honor_subject": true, "honor_extensions": true}}'
admin -o /dev/null -w '%{{http_code}}\\n' "$API/dmsmanager/v1/dms" -d '{{
  "id": "{DEMO_DMS}", "name": "Demo", "settings": {{
    "enrollment_settings": {{
      "protocol": "EST_RFC7030", "registration_mode": "JITP", "enrollment_ca": "{ENROLLMENT_CA}",
      "verify_csr_signature": true,
      "device_provisioning_profile": {{"icon": "CgSmartHomeBoiler", "icon_color": "#25ee32"}},
      "est_rfc7030_settings": {{"auth_mode": "CLIENT_CERTIFICATE",
        "client_certificate_settings": {{"validation_cas": ["{BOOTSTRAP_CA}"]}}}}}},
    "reenrollment_settings": {{"reenrollment_delta": "30d"}},
    "issuance_profile_id": "{DEMO_PROFILE}"}}}}'""",
        # 201 at the first run; 409 later: it is there already.
    )
    yield Step(
        "A bootstrap certificate, as the factory puts it on the device",
        f"""openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
  -keyout bootstrap.key -out bootstrap.csr -subj "/CN=bootstrap-$DEVICE/O=YourOrg" 2>/dev/null
admin "$API/ca/v1/cas/{BOOTSTRAP_CA}/certificates/sign" \\
  -d "{{\\"csr\\": \\"$(base64 -w 0 bootstrap.csr)\\", \\"profile_id\\": \\"{BOOTSTRAP_PROFILE}\\"}}" \\
  | sed 's/.*"certificate": *"\\([^"]*\\)".*/\\1/' | base64 -d > bootstrap.crt
openssl x509 -in bootstrap.crt -noout -subject -issuer -enddate""",
        expect=("CN = bootstrap-",),
    )


def _enrollment_steps(place: Place) -> Iterator[Step]:
    yield Step(
        "EST cacerts: whom the device will trust",
        """curl -sS --cacert "$DIR/tls-ca.crt" "$EST/cacerts" | base64 -d \\
  | openssl pkcs7 -inform DER -print_certs -out cacerts.pem
grep subject= cacerts.pem""",
        expect=("subject=",),
    )
    yield Step(
        "EST simpleenroll: a key of its own, a request, a certificate",
        """openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out device.key
openssl req -new -key device.key -subj "/CN=$DEVICE/O=YourOrg" -outform DER \\
  | base64 -w 0 > enroll.b64
curl -sS --fail-with-body --cacert "$DIR/tls-ca.crt" --cert bootstrap.crt --key bootstrap.key \\
  -H "Content-Type: application/pkcs10" --data-binary @enroll.b64 "$EST/simpleenroll" -o enrolled.b64
base64 -d enrolled.b64 | openssl pkcs7 -inform DER -print_certs -out device.crt
openssl x509 -in device.crt -noout -serial -subject -issuer -dates""",
        expect=(f"CN = {place.device_id}",),
    )
    yield Step(
        "The certificate holds against the trust anchors",
        "openssl verify -x509_strict -CAfile cacerts.pem device.crt",
        expect=("device.crt: OK",),
    )
    yield Step(
        "EST simplereenroll, by the renewal script of the security guide",
        "cp device.crt first.crt\n./renew.sh\nopenssl x509 -in device.crt -noout -serial -dates",
        expect=("renewing...", "serial="),
    )
    yield Step(
        "It is another certificate for the same device, and holds too",
        """! cmp -s first.crt device.crt && openssl verify -x509_strict -CAfile cacerts.pem device.crt""",
        expect=("device.crt: OK",),
    )


def _revocation_steps() -> Iterator[Step]:
    ocsp = (
        'openssl ocsp -issuer issuer.crt -cert device.crt -url "$VA/ocsp" -CAfile cacerts.pem 2>&1'
    )
    yield Step(
        "OCSP says good",
        f'curl -sS "$VA/ca/{ENROLLMENT_CA}.crt" | openssl x509 -inform DER -out issuer.crt\n{ocsp}',
        expect=("Response verify OK", "device.crt: good"),
    )
    yield Step(
        "Its key was compromised: revoke",
        """SERIAL=$(openssl x509 -in device.crt -noout -serial | cut -d= -f2 | tr A-F a-f)
admin -X POST "$API/ca/v1/certificates/$SERIAL/revoke" -d '{"reason": "key_compromise"}' \\
  | grep -o '"\\(status\\|revocation_reason\\)": *"[^"]*"'""",
        expect=("REVOKED", "KeyCompromise"),
    )
    yield Step(
        "OCSP says revoked",
        ocsp,
        expect=("Response verify OK", "device.crt: revoked", "Reason: keyCompromise"),
    )
    yield Step(
        "Its serial number is on the CRL",
        f"""SERIAL=$(openssl x509 -in device.crt -noout -serial | cut -d= -f2)
curl -sS "$VA/ca/{ENROLLMENT_CA}.crl" | openssl crl -inform DER -noout -text -CAfile cacerts.pem 2>&1 \\
  | grep -E -A 4 "verify|$SERIAL\"""",
        expect=("verify OK", "Serial Number: ", "Key Compromise"),
    )
    yield Step(
        "Re-enrolment is refused, with the reason",
        """openssl req -new -key device.key -subj "/CN=$DEVICE/O=YourOrg" -outform DER | base64 -w 0 \\
  | curl -sS -w '\\n%{http_code}\\n' --cacert "$DIR/tls-ca.crt" --cert device.crt --key device.key \\
    -H "Content-Type: application/pkcs10" --data-binary @- "$EST/simplereenroll\"""",
        expect=("certificate_revoked", "403"),
    )


def prepare(place: Place) -> None:
    """Make the device's folder with the security guide's renewal script in it.

    Only host, files, subject and service name of the script are changed.
    """
    place.folder.mkdir(parents=True, mode=0o700)
    script = files("lamassu.cli").joinpath("renew.sh").read_text()
    for old, new in (
        ("/etc/device/cert.pem", "device.crt"),
        ("/etc/device/key.pem", "device.key"),
        ("https://est.example.com", place.https_url),
        ("/tmp/renew", "renew"),  # noqa: S108  what the script says, replaced
        ("$(hostname)", place.device_id),
        ("device-agent", "lamassu-demo-device"),
    ):
        script = script.replace(old, new)
    path = place.folder / "renew.sh"
    path.write_text(script)
    path.chmod(0o700)


def run(step: Step, place: Place) -> str:
    """Run a step in the device's folder and return what it printed.

    Raises `StepFailed` when it fails or does not print what it should.
    """
    done = subprocess.run(  # noqa: S603  our own text, printed before it is run
        ["/bin/bash", "-c", f"{preamble(place)}\n{step.command}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = (done.stdout + done.stderr).strip()
    if done.returncode != 0 or not all(text in output for text in step.expect):
        raise StepFailed(step, output)
    return output


def walk(place: Place, show: Callable[[Step], None], tell: Callable[[str], None]) -> None:
    """Walk the whole life; `show` is given each step before it runs, `tell` what it printed."""
    prepare(place)
    for step in steps(place):
        show(step)
        tell(run(step, place))
