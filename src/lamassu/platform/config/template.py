"""The configuration that `lamassu init` writes: every key, each with a comment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

ENGINES = """\
# Keys encrypted in a directory: for development.
crypto_engines:
  default_id: software
  software:
    - id: software
      storage_directory: keys
      passphrase_file: secrets/keystore.pass    # production wants it outside this folder
      metadata: {}
      timeout_seconds: 10         # how long a caller waits for a signature
      # workers: 2                # calls at once; each kind of engine has its own default
  # migrate_keys_format: true     # of an earlier directory of PEM files: forget the files' names
# Keys of CAs belong into hardware or a vault; several of each kind may stand here at once:
#  pkcs11:
#    - id: production-hsm
#      token: LamassuCA
#      pin: "${HSM_PIN}"
#      module_path: /usr/lib/softhsm/libsofthsm2.so
#      module_extra_options: {env: {SOFTHSM2_CONF: /etc/lamassu/softhsm2.conf}}
#      backup: none              # wrapped: new keys can be backed up to another token
#  hashicorp_vault:
#    - id: vault-engine
#      role_id: "${VAULT_ROLE_ID}"
#      secret_id: "${VAULT_SECRET_ID}"
#      mount_path: lamassu-pki
#      address: https://vault.internal:8200
#  aws_kms:
#    - id: aws-kms-engine
#      region: us-east-1
# aws_secrets_manager and hashicorp_vault also hold what is no key: ${secret:engine/name}.
"""


@dataclass(frozen=True, slots=True)
class Choices:
    """What `init` was told; all else keeps its default."""

    listen_address: str = "127.0.0.1"
    port: int = 8443
    http_port: int = 8080
    internal_port: int = 8444
    public_urls: Sequence[str] = ("https://localhost:8443",)
    validation_urls: Sequence[str] = ("http://127.0.0.1:8080",)
    database_url: str = "sqlite:///data/lamassu.db"
    crypto_engines: str = ENGINES  # the section as YAML


def platform_template(choices: Choices) -> str:
    """The text of `config.yml`."""
    return f"""\
# Lamassu. `lamassu config check` judges this file; `lamassu config show` prints what is in effect.
# ${{NAME}} is an environment variable, ${{file:PATH}} a file's content; paths count from here.

# development is loud about what production refuses. Without this line: production.
mode: development

# REST APIs and EST over TLS.
http:
  port: {choices.port}
  protocol: https
  tls:
    cert_file: tls/server.crt
    key_file: tls/server.key
    min_version: TLS12            # or TLS13
    cipher_suites:                # of TLS 1.2; TLS 1.3 brings its own
      - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
      - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
      - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
      - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
  client_auth:
    enabled: true                 # ask for client certificates; nothing else authenticates yet
    ca_file: tls-ca.crt           # whose certificates are principals
    required: false               # true: 401 under /api without one, always

server:
  listen_address: {json.dumps(choices.listen_address)}
  http_port: {choices.http_port}   # plain HTTP: OCSP, CRLs, CA certificates, nothing else
  internal_port: {choices.internal_port}   # mutual TLS for our own services (an EST edge)
  public_urls: {json.dumps(list(choices.public_urls))}   # names that browsers may come from

# Where data is kept: sqlite:///path or postgresql://user:password@host:port/name?sslmode=verify-full.
database:
  url: {json.dumps(choices.database_url)}
# Or in place of `database`:
# postgres:
#   hostname: postgres.internal
#   port: 5432
#   database: lamassu
#   username: lamassu_app
#   password: "${{DB_PASSWORD}}"
#   sslmode: verify-full
#   sslcert: /etc/lamassu/db/client.crt
#   sslkey: /etc/lamassu/db/client.key
#   sslrootcert: /etc/lamassu/db/ca.crt
#   pool_size: 8                  # connections of each service
#   users:                        # a role of its own for a service
#     ca: {{username: ca_service, password: "${{CA_DB_PASSWORD}}"}}

# Where private keys live.
{choices.crypto_engines.strip()}

# Addresses that certificates carry for OCSP, CRLs and issuers.
va:
  public_urls: {json.dumps(list(choices.validation_urls))}

ca:
  allow_cascade_delete: false     # true: a CA can be deleted with all that it issued
  certificate_monitoring_job:     # tells of certificates that ended, or are about to
    enabled: true
    frequency: 10m
  lint_sample: 0.01               # share of what is issued that all linters read afterwards

# What stands in where a DMS names none; bootstrap CAs are in no device's trust store.
dms:
  enrollment_ca: manufacturing-ca
  issuance_profile: device-profile
  bootstrap_cas: [bootstrap-ca]
  allow_unverified_csr: false     # true is refused: every CSR's signature is verified

# The issuance log: `lamassu log status` shows its key.
log:
  origin: ""                      # its name for good, once it is opened; empty: made of the host
  witnesses: []                   # installations that sign its heads:
  #  - url: https://other.example:8443
  #    key: "other.example/witness/1a2b3c4d+…"    # what `lamassu log status` shows there
  #    cert_file: witness.crt     # an admin certificate of that installation
  #    key_file: witness.key
  #    ca_file: witness-ca.crt    # its tls-ca.crt
  witnessed: []                   # keys of logs whose heads are signed here

logs:
  level: info                     # debug, info, warning, error
  format: console                 # or json
# security_events, and the sections otel and identity_extractors, are read and not in effect yet.
"""


def edge_template(*, port: int, upstream: str, listen_address: str) -> str:
    """The text of `est/config.yml`: an EST edge alone."""
    return f"""\
# An EST edge: `lamassu serve --dir . --service est`. It holds its own key and nothing else.
mode: development

http:
  port: {port}
  protocol: https
  tls:
    cert_file: est.crt
    key_file: est.key
    min_version: TLS12

server:
  listen_address: {json.dumps(listen_address)}

# Where it asks, and as whom. Allow this port, and no other, from the DMZ inwards.
est:
  upstream: {json.dumps(upstream)}
  cert_file: est.crt
  key_file: est.key
  ca_file: tls-ca.crt

logs:
  level: info
  format: console
"""
