"""Explain errors of stores and disks, with what to do."""

from __future__ import annotations

import errno
from typing import Any

from wsss_ray.storage.redaction import masked
from wsss_ray.storage.retries import TRANSIENT_ANSWERS, TRANSIENT_BODIES, TRANSIENT_CONNECTIONS, TRANSIENT_STATUSES

BARE_CODES = frozenset({"301", "400", "403"})
"""Codes of an answer to HEAD, which has no body that would give the reason."""


class StorageError(OSError):
    """A file or store that cannot be used; the text says which, why and what to do."""


_DENIED = (
    "access denied. Check that the credentials of this process (environment, profile or instance role) may list, read "
    "and write this prefix."
)
_EXPIRED = (
    "the session token has expired. Get a new one (aws sso login, or new AWS_* variables), or use an instance role, "
    "whose tokens renew themselves; then run the same command again."
)
_UNKNOWN_KEY = (
    "the store does not accept the credentials. Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile "
    "(--storage.profile), and that they belong to this endpoint."
)
_NO_KEY = (
    "no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, give --storage.profile, or run where "
    "an instance role is attached."
)
_REGION = "the bucket is in another region{region}. Give --storage.region, or set AWS_DEFAULT_REGION."
_AWAY = (
    "the store cannot be reached ({name}). Check the network and --storage.endpoint-url (or AWS_ENDPOINT_URL); once it "
    "is back, run the same command again."
)
_BUSY = "the store kept refusing ({name}). Run the same command again later, or with fewer actors."
_NOT_ALLOWED = "permission denied. Check the owner and the mode of the file and its folder."
_FULL = "the disk is full ({name}). Make room or use another --output, and run the same command again."

_BY_CODE = {
    "NoSuchBucket": "the bucket does not exist; check its name and the endpoint.",
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "403": _DENIED,
    "Forbidden": _DENIED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _UNKNOWN_KEY,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _UNKNOWN_KEY,
    "RequestTimeTooSkewed": "this machine's clock is wrong: the store refuses requests of another time. Set the clock.",
    "301": _REGION,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "IncorrectEndpoint": _REGION,
}
_BY_TYPE = {
    "NoCredentialsError": _NO_KEY,
    "PartialCredentialsError": _NO_KEY,
    "CredentialRetrievalError": _NO_KEY,
    "MetadataRetrievalError": _NO_KEY,
    "ProfileNotFound": "there is no such profile in ~/.aws on this machine. Check --storage.profile or AWS_PROFILE.",
    "NoRegionError": "no region is set. Give --storage.region, or set AWS_DEFAULT_REGION.",
    "SSOTokenLoadError": _EXPIRED,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "TokenRetrievalError": _EXPIRED,
    "SSLError": "no safe connection: the certificate of the endpoint cannot be checked. Check --storage.endpoint-url.",
    **dict.fromkeys(TRANSIENT_CONNECTIONS | TRANSIENT_BODIES, _AWAY),
}
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def code_of(error: BaseException) -> str | None:
    """Return S3's error code behind an exception of s3fs; None where there is none."""
    return _details(error).get("Code")


def is_absent(error: FileNotFoundError) -> bool:
    """Return whether a file is missing, rather than its whole bucket."""
    return code_of(error) != "NoSuchBucket"


def explained(error: Exception, where: str) -> StorageError | None:
    """Return the error for the user, or None where the exception is not one of a store or a disk.

    Args:
        error: what was raised.
        where: file or prefix, for the text.
    """
    advice = _advice(error)
    if advice is not None:
        return StorageError(f"{where}: {advice}")
    of_a_client = type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp"))
    if isinstance(error, OSError) or of_a_client:
        text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return StorageError(f"{where}: {masked(text)}")
    return None


def _advice(error: Exception) -> str | None:
    code, name = code_of(error), type(error).__name__
    if code in _BY_CODE:
        region = _details(error).get("Region")
        return _BY_CODE[code].format(region=f" ({region})" if region else "")
    if code is not None and (code in TRANSIENT_ANSWERS or code in {str(status) for status in TRANSIENT_STATUSES}):
        return _BUSY.format(name=code)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return _FULL.format(name=error.strerror)
    if code is None and name in _BY_TYPE:
        return _BY_TYPE[name].format(name=name)
    if isinstance(error, PermissionError):
        return _NOT_ALLOWED if error.errno else f"{_DENIED} ({masked(str(error))})"
    return None


def _details(error: BaseException) -> dict[str, Any]:
    """Return what S3 answered, from the exception or its cause."""
    for link in (error, error.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return dict(response.get("Error", {}))
    return {}
