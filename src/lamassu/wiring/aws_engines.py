"""The configuration's AWS engines as objects. Imported only where one is configured: the vendor's
library is slow to load."""

from __future__ import annotations

from pydantic import SecretStr

from lamassu.platform.config.engine_sections import AwsEngine, AwsKmsEngine, CryptoEngines
from lamassu.platform.config.engine_sections import SecretsManagerEngine as SecretsManagerSection
from lamassu.platform.installation import Installation
from lamassu.services.kms.contract import KeySpec
from lamassu.services.kms.engines.aws import kms, secrets_manager
from lamassu.services.kms.engines.aws.access import AwsAccess
from lamassu.services.kms.engines.aws.kms_signing import KEY_SPECS
from lamassu.services.kms.ports import CryptoEngine, EngineLimits
from lamassu.wiring.mark import installation_mark


def open_aws_engines(installation: Installation, engines: CryptoEngines) -> list[CryptoEngine]:
    """Every AWS engine, in configured order. Nothing is asked yet."""
    mark = installation_mark(installation)
    return [
        *(open_kms(section, mark) for section in engines.aws_kms),
        *(open_secrets_manager(section, mark) for section in engines.aws_secrets_manager),
    ]


def open_kms(section: AwsKmsEngine, mark: str) -> kms.AwsKmsEngine:
    """`mark` tells this installation's keys from others' in the same account."""
    return kms.AwsKmsEngine(
        section.id,
        access_of(section),
        limits=_limits(section, kms.WORKERS),
        first=_spec_named(section.key_spec),
        installation=mark,
        metadata=dict(section.metadata),
    )


def open_secrets_manager(
    section: SecretsManagerSection, mark: str = ""
) -> secrets_manager.SecretsManagerEngine:
    """Also for who only reads secrets in it: then without a mark."""
    return secrets_manager.SecretsManagerEngine(
        section.id,
        access_of(section),
        limits=_limits(section, secrets_manager.WORKERS),
        installation=mark,
        metadata=dict(section.metadata),
    )


def access_of(section: AwsEngine) -> AwsAccess:
    """Where and as whom a section's engine calls AWS."""
    return AwsAccess(
        region=section.region,
        auth_method=section.auth_method,
        endpoint_url=section.endpoint_url,
        sts_endpoint_url=section.sts_endpoint_url,
        role_arn=section.role_arn,
        access_key_id=_text(section.access_key_id),
        secret_access_key=_text(section.secret_access_key),
        session_token=_text(section.session_token),
    )


def _limits(section: AwsEngine, workers: int) -> EngineLimits:
    return EngineLimits(workers=section.workers or workers, sign_seconds=section.timeout_seconds)


def _spec_named(name: str) -> KeySpec:
    return next(spec for spec, known in KEY_SPECS.items() if known == name)


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
