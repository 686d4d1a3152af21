"""What AWS and the vendor's library say, in the words of the platform.

Nothing of their texts passes: they hold account numbers, and sometimes what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from botocore import exceptions as boto

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.engines.aws.access import ROLE, STATIC, AwsAccess
from lamassu.services.kms.ports import EngineDown, EngineRefused

THROTTLED_PAUSE = 2  # seconds that a throttled caller is asked to wait

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "429",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_SKEWED = frozenset({"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"})
_WRONG = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "NotAuthorizedException",
        "OptInRequired",
        "UnauthorizedOperation",
    }
)

_NOT_THIS = frozenset({"UnknownOperationException", "InvalidAction", "404", "403", "405"})


class AwsAnswer(Unavailable):
    """AWS answered no, about what was asked and not about us; `name` is its error's name.

    An adapter that knows what the name means there says it in its own words.
    """

    default_code = "engine_failing"

    def __init__(self, engine_id: str, operation: str, name: str) -> None:
        super().__init__(
            f"crypto engine {engine_id}: AWS refused {operation} ({name}); if it lasts,"
            " look the refusal up in CloudTrail",
            retry_after=5,
        )
        self.name = name


def said(answer: boto.ClientError) -> str:
    """The name of the error that AWS sent, fit for a text."""
    name = str(answer.response.get("Error", {}).get("Code", ""))
    return name if _CODE.fullmatch(name) else "an error without a name"


def answered(
    answer: boto.ClientError, *, engine_id: str, access: AwsAccess, about_key: bool
) -> Unavailable:
    """The error for an answer. `about_key`: the call was for one key, so that a denial may be
    that key's policy and says nothing of the engine."""
    name, operation = said(answer), answer.operation_name
    who = f"crypto engine {engine_id}"
    status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    of_us = _about_us(who, name, answer, access)
    if of_us is not None:
        return of_us
    if name in _THROTTLED or status == 429:
        return EngineDown(
            f"{who}: AWS throttles {operation}; try again shortly, and have the account's quota"
            " raised if it lasts",
            code="engine_throttled",
            retry_after=THROTTLED_PAUSE,
        )
    if name in _DENIED:
        return _denied(who, operation, access, about_key=about_key)
    if status >= 500:
        return EngineDown(
            f"{who}: AWS fails at {operation} ({name}); try again shortly",
            code="engine_failing",
            retry_after=5,
        )
    if name in _NOT_THIS:
        return EngineRefused(
            f"{who}: what answers at {access.where} is not this AWS service; correct"
            " `endpoint_url` or `region`",
            code="not_this_service",
        )
    return AwsAnswer(engine_id, operation, name)


def _about_us(
    who: str, name: str, answer: boto.ClientError, access: AwsAccess
) -> EngineDown | None:
    """What AWS says of our credentials and our clock."""
    if name in _EXPIRED:
        return _expired(who, access)
    if name in _SKEWED or (name in _WRONG and _is_late(answer)):
        return EngineDown(
            f"{who}: AWS says that the request is too old or too new; set this host's clock",
            code="clock_skew",
            retry_after=30,
        )
    if name in _WRONG:
        return EngineRefused(f"{who}: {_wrong(access)}", code="wrong_credentials")
    return None


def _expired(who: str, access: AwsAccess) -> EngineDown:
    if access.auth_method == STATIC:
        return EngineRefused(
            f"{who}: the session token has expired; give a new `session_token` with its keys, or"
            " use auth_method role, which renews itself",
            code="token_expired",
        )
    return EngineDown(
        f"{who}: the credentials have expired and were not renewed; renew what the credentials"
        " chain of this host finds (environment, profile, instance role)",
        code="token_expired",
        retry_after=30,
    )


def _wrong(access: AwsAccess) -> str:
    if access.auth_method == STATIC:
        return (
            "AWS does not accept `access_key_id` and `secret_access_key`; are they of this"
            " account and active?"
        )
    return "AWS does not accept the credentials that this host's credentials chain found"


def _denied(who: str, operation: str, access: AwsAccess, *, about_key: bool) -> Unavailable:
    if operation == "AssumeRole":
        return EngineRefused(
            f"{who}: AWS does not let this host assume {access.role_arn}; correct `role_arn`, or"
            " the role's trust policy",
            code="role_refused",
        )
    text = f"{who}: AWS denies {operation}; allow it in the IAM policy"
    if about_key:
        return Unavailable(f"{text} or in the policy of the key", code="key_access_denied")
    return EngineRefused(text, code="access_denied")


def _is_late(answer: boto.ClientError) -> bool:
    message = str(answer.response.get("Error", {}).get("Message", ""))
    return message.startswith(("Signature expired", "Signature not yet current"))


_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.ProfileNotFound,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.MetadataRetrievalError,
)
_TIMEOUTS = (boto.ReadTimeoutError, boto.ConnectTimeoutError)


def failed(error: boto.BotoCoreError, *, engine_id: str, access: AwsAccess) -> EngineDown:
    """The error for what the vendor's library could not do."""
    who = f"crypto engine {engine_id}"
    if isinstance(error, _NO_CREDENTIALS):
        return EngineRefused(
            f"{who}: no AWS credentials were found ({_chain(access)})", code="no_credentials"
        )
    if isinstance(error, boto.SSLError):
        return EngineRefused(
            f"{who}: the certificate of {access.where} is not trusted; correct `endpoint_url`, or"
            " name its CA in the variable AWS_CA_BUNDLE",
            code="engine_untrusted",
        )
    if isinstance(error, _TIMEOUTS):
        return EngineDown(
            f"{who}: {access.where} did not answer in time", code="engine_timeout", retry_after=5
        )
    if isinstance(error, boto.EndpointConnectionError) and _unresolved(error):
        return EngineDown(
            f"{who}: the name of {access.where} cannot be resolved; is it right, and does this"
            " host reach a name server?",
            code="endpoint_unknown",
            retry_after=30,
        )
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return EngineDown(
            f"{who}: {access.where} cannot be reached; check the network, the proxy and"
            " `endpoint_url`",
            retry_after=5,
        )
    return unreadable(engine_id=engine_id, access=access)


def unreadable(*, engine_id: str, access: AwsAccess) -> EngineDown:
    """The error for an answer that is none of AWS's."""
    return EngineDown(
        f"crypto engine {engine_id}: {access.where} answers what cannot be read; is it AWS, or"
        " a proxy between?",
        code="engine_unreadable",
        retry_after=30,
    )


def _unresolved(error: boto.EndpointConnectionError) -> bool:
    arguments: Mapping[str, object] = error.kwargs
    return "NameResolution" in type(arguments.get("error")).__name__ + str(arguments.get("error"))


def _chain(access: AwsAccess) -> str:
    if access.auth_method == STATIC:
        return "give `access_key_id` and `secret_access_key`"
    chain = "give this host an instance role, a profile or AWS_ACCESS_KEY_ID, or use auth_method"
    return f"{chain} static" if access.auth_method != ROLE else f"{chain} static in place of role"
