"""Say in one line what an exception of a library means: the only place that knows them.

Nothing is claimed that the exception does not prove. `explain` looks at an exception and at those
that caused it: codes of S3, HTTP statuses, certificates, names of hosts, error numbers of the
operating system, and packages that cannot be imported. Of what it does not know it returns the type
and the text. The libraries are recognised by names, so that none is imported for it.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import ssl
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import SoilweaveError, StoreError, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Iterator


MAX_TEXT = 300  # characters of a library's own text
S3_PREFIXES = ("s3://", "s3a://")
S3_HINT = (
    "the endpoint and keys are read from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)

# Where the file systems of fsspec find the account, by the beginning of the URL.
CREDENTIAL_HINTS = {
    S3_PREFIXES: S3_HINT,
    ("gs://", "gcs://"): "credentials are read from the file of GOOGLE_APPLICATION_CREDENTIALS, "
    "or those of `gcloud auth application-default login`",
    ("az://", "abfs://", "abfss://"): "the account is read from AZURE_STORAGE_CONNECTION_STRING, "
    "or from AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}

# The optional packages by the name to import: their name in the package index, and the extra of
# soilweave that has them. tests/repository/test_extras.py compares them with pyproject.toml.
OPTIONAL_PACKAGES = {
    "adlfs": ("adlfs", "sources"),
    "earthaccess": ("earthaccess", "sources"),
    "gcsfs": ("gcsfs", "sources"),
    "icechunk": ("icechunk", "sources"),
    "ismn": ("ismn", "sources"),
    "odc": ("odc-geo", "sources"),
    "pooch": ("pooch", "sources"),
    "rasterio": ("rasterio", "sources"),
    "rioxarray": ("rioxarray", "sources"),
}


@dataclass(frozen=True)
class Explanation:
    """What an exception means.

    Attributes:
      reason: What happened, without the operation and its object.
      remedy: What to do; empty if that depends on the caller.
      passing: Whether the same operation may succeed later without any change.
      account: Whether it may depend on the endpoint or the credentials.
      known: Whether the kind of failure is known; else the reason is the exception's own text.
    """

    reason: str
    remedy: str = ""
    passing: bool = False
    account: bool = False
    known: bool = True


AGAIN = "try again later"
RENEW = "renew the credentials; for S3, set AWS_SESSION_TOKEN together with its keys"
KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a pair that the server knows"
REGION = "set AWS_DEFAULT_REGION to the region of the bucket"
ROOM = "make room there, or use another disk"
BUSY = Explanation("the server is busy", AGAIN, passing=True)
EXPIRED = Explanation("the session token has expired", RENEW, account=True)
NO_ROOM = Explanation("the store has no space left", "make room there, or use another store")

S3_CODES = {
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": Explanation("the session token is not valid", RENEW, account=True),
    "InvalidAccessKeyId": Explanation(
        "the server does not know the access key", KEYS, account=True
    ),
    "SignatureDoesNotMatch": Explanation(
        "the server does not accept the signature that was made with the secret key",
        KEYS,
        account=True,
    ),
    "NoSuchBucket": Explanation("there is no such bucket", "create it, or correct the URL"),
    "InvalidBucketName": Explanation("that is no name of a bucket", "correct the URL"),
    "InvalidObjectState": Explanation("the object is archived", "restore it to the bucket first"),
    "PermanentRedirect": Explanation("the bucket is in another region", REGION),
    "IllegalLocationConstraintException": Explanation("the bucket is in another region", REGION),
    "QuotaExceeded": NO_ROOM,
    "XMinioStorageFull": NO_ROOM,
    "InsufficientCapacity": NO_ROOM,
    **dict.fromkeys(
        (
            "SlowDown",
            "ServiceUnavailable",
            "InternalError",
            "RequestTimeout",
        ),
        BUSY,
    ),
}

# The permission that a request of S3 needs.
PERMISSIONS = {
    "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object is refused)",
    "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object is refused)",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
REFUSED_CODES = ("AccessDenied", "AllAccessDisabled", "AccountProblem", "NotSignedUp")

SILENT = "does not say why"
BUSY_STATUSES = (408, 425, 429, 500, 502, 503, 504)

# Error numbers of the operating system, whose own words are the reason -> remedy.
ERROR_NUMBERS = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit of `ulimit -f`",
    errno.EROFS: "use a folder that can be written to",
    errno.EACCES: "change its permissions, or use another place",
    errno.EPERM: "change its permissions, or use another place",
    errno.EMFILE: "raise the limit of `ulimit -n`",
    errno.ENFILE: AGAIN,
    errno.ENOMEM: "use a machine with more memory",
    errno.EIO: "see the system's log",
    errno.ESTALE: AGAIN,
    errno.EISDIR: "give the name of a file, not of a folder",
    errno.ENOTDIR: "correct the path, in which a file stands for a folder",
    errno.ENOENT: "correct the path",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "correct its symbolic links",
}

# Those whose message names the file, if it is known.
PLACED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)

# Of sockets.
NETWORK_NUMBERS = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
)

NO_CONNECTION = Explanation("no connection to the server", AGAIN, passing=True, account=True)
CLOSED = Explanation("the server closed the connection", AGAIN, passing=True)
CUT_SHORT = Explanation("the answer ended before it was complete", AGAIN, passing=True)

# Parts of the names of exceptions in aiohttp, botocore, requests, gcsfs, adlfs and Ray -> meaning.
NAMES = {
    "NoCredentials": Explanation("no credentials were found", account=True),
    "DefaultCredentials": Explanation("no credentials were found", account=True),
    "PartialCredentials": Explanation("a part of the credentials is missing", account=True),
    "ClientAuthentication": Explanation("the credentials were not accepted", account=True),
    "SSOToken": Explanation("the login has expired or is missing", "log in: aws sso login"),
    "RefreshError": Explanation("the credentials could not be renewed", account=True),
    "CredentialRetrieval": Explanation("the credentials could not be obtained", account=True),
    "Timeout": Explanation("no answer in time", AGAIN, passing=True),
    "ServerDisconnected": CLOSED,
    "ConnectionClosed": CLOSED,
    "ClientPayload": CUT_SHORT,
    "IncompleteRead": CUT_SHORT,
    "ResponseStreaming": CUT_SHORT,
    "EndpointConnection": NO_CONNECTION,
    "ClientConnector": NO_CONNECTION,
    "OutOfDiskError": Explanation("Ray has no space left on a disk", "set RAY_TMPDIR to another"),
}


def explain(error: BaseException, url: str = "") -> Explanation:
    """Return what an exception means.

    Args:
      error: The exception, of any library.
      url: What was accessed; it decides where credentials are looked for.
    """
    links = list(chain(error))
    found = next(
        (f for look in _LOOKS for link in links if (f := look(link, links)) is not None),
        Explanation(own_text(error), account=True, known=False),
    )
    hint = next((h for begin, h in CREDENTIAL_HINTS.items() if url.startswith(begin)), "")
    if found.account and hint:
        return replace(found, remedy="; ".join(filter(None, (found.remedy, hint))))
    return found


def storage_exceptions(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the exceptions of file systems for failed reads, writes and connections, and more."""
    # The libraries are imported only if they are in use.
    names = {
        "botocore.exceptions": "BotoCoreError",
        "aiohttp": "ClientError",
        "gcsfs.retry": "HttpError",
        "google.auth.exceptions": "GoogleAuthError",
        "azure.core.exceptions": "AzureError",
    }
    found = (getattr(sys.modules.get(module), name, None) for module, name in names.items())
    return (OSError, *filter(None, found), *more)


def store_error(url: str, operation: str, error: BaseException) -> StoreError:
    """Return the error for an object of a store.

    Args:
      url: The object.
      operation: `opened`, `read`, `listed`, `written`, `removed` or `copied to ...`.
      error: What the library raised.
    """
    found = explain(error, url)
    remedies = [found.remedy]
    is_local = found.remedy in ERROR_NUMBERS.values() and not found.passing
    if operation == "written" and (is_local or not found.known):
        remedies.append("or give a writable workspace with --workspace")
    elif url.startswith(("http://", "https://")) and not found.remedy:
        remedies.append("correct the URL, or try again later")
    remedy = "; ".join(filter(None, remedies)).removeprefix("or ")
    kind = UnwritableError if operation == "written" else StoreError
    return kind(url, f"cannot be {operation}: {found.reason}", remedy=remedy)


def read_problem(error: BaseException) -> str:
    """Return why data cannot be read; an unknown error of a library comes from their content."""
    found = explain(error)
    if isinstance(error, ImportError):
        return found.reason
    return f"cannot be read{'' if found.known else ', truncated or damaged'}: {found.reason}"


def is_silent(error: BaseException) -> bool:
    """Return whether a server has refused a request without saying why, as S3 does for HEAD."""
    return SILENT in explain(error).reason


def ask_s3(error: Exception, filesystem: Any, path: str) -> Exception:
    """Return the error of S3 that says why: answers to HEAD have no text, so GET is asked.

    Args:
      error: What was raised.
      filesystem: The file system of s3fs.
      path: The object in it.
    """
    bucket, key, _ = filesystem.split_path(path)
    try:
        if key:
            filesystem.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
        else:
            filesystem.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except Exception as told:  # noqa: BLE001  # whatever it is, it says more than HEAD's answer
        return error if isinstance(told, FileNotFoundError) else told
    return error


def is_absence(error: BaseException) -> bool:
    """Return whether nothing is there; fsspec raises FileNotFoundError for other failures, too."""
    absent = (FileNotFoundError, NotADirectoryError)
    if not isinstance(error, absent):
        return False
    cause = next((link for link in chain(error) if not isinstance(link, absent)), None)
    return cause is None or http_status(cause) in (404, 410) or not explain(cause).known


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that caused it, each once."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        link = queue.pop(0)
        if any(link is other for other in seen):
            continue
        if seen and link is error.__context__ and isinstance(link, SoilweaveError):
            continue  # told already, before the next attempt
        seen.append(link)
        yield link
        # `cause` is Ray's, with the exception of a task, and `kwargs` botocore's.
        kwargs = getattr(link, "kwargs", None)
        inner = kwargs.get("error") if isinstance(kwargs, dict) else None
        followers = [getattr(link, "cause", None), link.__cause__, inner]
        # An error of Python itself may have been raised while an unrelated one was handled.
        if link.__cause__ is None and type(link).__module__ != "builtins":
            followers += [] if link.__suppress_context__ else [link.__context__]
        queue += [each for each in followers if isinstance(each, BaseException)]
        if isinstance(link, BaseExceptionGroup):
            queue += link.exceptions


def own_text(error: BaseException) -> str:
    """Return the type and the text of an exception in one line."""
    text = " ".join(str(error).split())[:MAX_TEXT]
    name = type(error).__name__
    if isinstance(error, KeyError):  # its text is only the key
        return f"{name}: {text}"
    return text if isinstance(error, OSError) and text else f"{name}: {text}".rstrip(": ")


Links = list[BaseException]


def _own(link: BaseException, links: Links) -> Explanation | None:
    """One of our own errors, raised within a library."""
    if not isinstance(link, SoilweaveError):
        return None
    return Explanation(f"{link.place}: {'; '.join(link.problems)}", link.remedy)


def _s3(link: BaseException, links: Links) -> Explanation | None:
    """An answer of S3 with a code, such as ExpiredToken."""
    answer = getattr(link, "response", None)
    if not isinstance(answer, dict) or not isinstance(answer.get("Error"), dict):
        return None
    code, text = str(answer["Error"].get("Code", "")), str(answer["Error"].get("Message", ""))
    if not code or code.isdigit():
        return None
    request = str(getattr(link, "operation_name", ""))
    if code in REFUSED_CODES:
        allow = f"allow {PERMISSIONS[request]} to these keys" if request in PERMISSIONS else ""
        return Explanation(f"the server refuses {request or 'the request'} ({code})", allow)
    if code == "RequestTimeTooSkewed":
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        reason = f"the clocks of the server and of this machine, {now} UTC, differ too much"
        return Explanation(f"{reason} ({code})", "set the clock that is wrong")
    if code == "AuthorizationHeaderMalformed" and "region" in text:
        return Explanation(f"the bucket is in another region: {text[:MAX_TEXT]} ({code})", REGION)
    if code in S3_CODES:
        return replace(S3_CODES[code], reason=f"{S3_CODES[code].reason} ({code})")
    return Explanation(f"the server answers {code}: {' '.join(text.split())[:MAX_TEXT]}")


def _import(link: BaseException, links: Links) -> Explanation | None:
    """A package that is missing, or is there and cannot be loaded."""
    if not isinstance(link, ImportError):
        return None
    causes = [each for each in links if isinstance(each, ImportError) and each.name]
    name = str(causes[-1].name).partition(".")[0] if causes else ""
    package, extra = OPTIONAL_PACKAGES.get(name, (name, ""))
    if not name or not isinstance(causes[-1], ModuleNotFoundError) or _is_installed(name):
        what = f"the package {package}" if package else "a package"
        see = f"see why with: python -c 'import {name}'" if name else ""
        return Explanation(f"{what} cannot be loaded: {own_text(link)}", see)
    install = f"pip install 'soilweave[{extra}]'" if extra else f"pip install {package}"
    return Explanation(f"needs the package {package}, which is not installed", install)


def _is_installed(name: str) -> bool:
    """Return whether there is a package of this name, although it may not be loadable."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _tls(link: BaseException, links: Links) -> Explanation | None:
    """A certificate that is not accepted, or no TLS at the other end."""
    if not isinstance(link, ssl.SSLError):
        return None
    if isinstance(link, ssl.SSLCertVerificationError):
        remedy = "for a private authority, set AWS_CA_BUNDLE or SSL_CERT_FILE to its certificate"
        return Explanation(
            f"the certificate of the server is not accepted: {_ssl_text(link)}", remedy
        )
    reason = f"no secure connection: {_ssl_text(link)}"
    return Explanation(reason, "correct the address: https:// only for servers that speak TLS")


def _ssl_text(link: ssl.SSLError) -> str:
    """Return what OpenSSL says; the attributes are missing in errors that it has not raised."""
    text = getattr(link, "verify_message", "") or getattr(link, "reason", "") or own_text(link)
    return str(text).replace("_", " ").lower()


def _host(link: BaseException, links: Links) -> Explanation | None:
    """A name that cannot be resolved."""
    if not isinstance(link, socket.gaierror):
        return None
    host = next((str(h) for each in links if (h := getattr(each, "host", None))), "")
    reason = f"the host {host} cannot be found".replace("  ", " ")
    remedy = "correct its name, or try again later"
    return Explanation(f"{reason}: {link.strerror}", remedy, passing=True, account=True)


def _status(link: BaseException, links: Links) -> Explanation | None:
    """An HTTP status."""
    status = http_status(link)
    if status is None or status < 300:
        return None
    if status in BUSY_STATUSES:
        return replace(BUSY, reason=f"the server answers {status}")
    text = {
        301: f"redirects the request (301) and {SILENT}",
        307: f"redirects the request (307) and {SILENT}",
        400: f"does not accept the request (400) and {SILENT}",
        401: "does not accept the credentials (401)",
        403: f"refuses the request (403) and {SILENT}",
        404: "has nothing there (404)",
        407: "of the proxy wants a login (407)",
        507: "has no space left (507)",
    }.get(status, f"answers {status}")
    return Explanation(f"the server {text}", account=status in (400, 401, 403))


def http_status(link: BaseException) -> int | None:
    """Return the HTTP status in an exception of aiohttp, botocore, requests, gcsfs or adlfs."""
    answer = getattr(link, "response", None)
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    candidates = (
        getattr(link, "status", None),
        getattr(link, "status_code", None),
        getattr(answer, "status_code", None),
        getattr(link, "code", None) if type(link).__name__ in ("HttpError", "HTTPError") else None,
    )
    numbers = (each for each in candidates if isinstance(each, int) and 100 <= each < 600)
    return next(numbers, None)


def _number(link: BaseException, links: Links) -> Explanation | None:
    """An error number of the operating system."""
    number = getattr(link, "errno", None)
    if isinstance(link, MemoryError):
        return Explanation("not enough memory", ERROR_NUMBERS[errno.ENOMEM])
    if not isinstance(link, OSError) or not isinstance(number, int):
        return None
    if number in NETWORK_NUMBERS:
        hosts = ((getattr(each, "host", ""), getattr(each, "port", "")) for each in links)
        at = next((f" ({host}:{port})" for host, port in hosts if host and port), "")
        return Explanation(f"{os.strerror(number)}{at}", AGAIN, passing=True, account=True)
    if number not in ERROR_NUMBERS:
        return None
    # A temporary file, say, is not the object that the caller names.
    where = f": {link.filename}" if number in PLACED and isinstance(link.filename, str) else ""
    passing = number in (errno.EMFILE, errno.ENFILE, errno.ESTALE)
    return Explanation(f"{os.strerror(number)}{where}", ERROR_NUMBERS[number], passing)


def _name(link: BaseException, links: Links) -> Explanation | None:
    """The class of an exception; also those of Python that have no error number."""
    name = type(link).__name__
    for part, found in NAMES.items():
        if part in name:
            return found
    if isinstance(link, ValueError) and str(link).startswith("Protocol not known"):
        reason = " ".join(str(link).split()).replace("Protocol not known", "unknown protocol")
        return Explanation(reason, "give a path, or a URL such as s3://BUCKET/FOLDER")
    if isinstance(link, RecursionError):
        reason = "the client does not come to an end (RecursionError), as that of S3 if a server "
        return Explanation(f"{reason}redirects it to a region without naming it", REGION)
    if isinstance(link, PermissionError):
        return Explanation("access is refused", account=True)
    if isinstance(link, ConnectionError):
        return Explanation(own_text(link), AGAIN, passing=True, account=True)
    return None


# In this order: a code of S3 says more than the status, and a status more than a number.
_LOOKS = (_own, _s3, _import, _tls, _host, _status, _number, _name)
